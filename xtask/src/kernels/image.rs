//! Debian's kernel images, fetched once into the cache folder.
//!
//! By apt, from the mirror that this machine's own apt uses, and into folders of its own: what
//! the machine has installed, and from which releases, is neither looked at nor changed. apt
//! verifies the release by Debian's keys and the packages by the release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::process::{output, run};
use crate::{setup, toolchain};

/// Signs every Debian release. From the package debian-archive-keyring, on which Debian's apt
/// depends.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The kernel without drivers for hardware: the same network stack at a third of the size. The
/// newest kernels are in several packages, whose names end alike.
const PACKAGE: &str = "linux-image-cloud-amd64";
const PACKAGE_END: &str = "-cloud-amd64";

/// A kernel that can be booted.
#[derive(Debug)]
pub(super) struct Image {
    /// What it calls itself: `6.1.0-50-cloud-amd64`.
    pub(super) release: String,
    /// What boots.
    pub(super) vmlinuz: PathBuf,
    /// Its modules, as in `/lib/modules/RELEASE`, with the indexes of depmod.
    pub(super) modules: PathBuf,
}

impl Image {
    /// The kernel of a Debian release, from the cache folder or, if it is not there or an
    /// `update` is wanted, from the mirror.
    pub(super) fn of(debian: &str, update: bool) -> anyhow::Result<Self> {
        let cache = toolchain::cache().context("neither XDG_CACHE_HOME nor HOME is set")?;
        let cache = cache.join("kernels");
        let _held_to_the_end = super::lock(&cache)?;
        let root = cache.join(debian);
        if update || !root.exists() {
            // A fetch that is interrupted leaves nothing that looks complete.
            let partial = cache.join(format!("{debian}.partial"));
            remove(&partial)?;
            fetch(debian, &partial)?;
            remove(&root)?;
            fs::rename(partial.join("root"), &root)
                .with_context(|| format!("cannot make {}", root.display()))?;
            remove(&partial)?;
        }
        Self::unpacked(&root)
    }

    fn unpacked(root: &Path) -> anyhow::Result<Self> {
        let modules = only_entry(&root.join("lib/modules"))?;
        let release = modules.file_name().unwrap_or_default();
        let release = release.to_string_lossy().into_owned();
        let places = [
            root.join("boot").join(format!("vmlinuz-{release}")),
            modules.join("vmlinuz"),
        ];
        let vmlinuz = places.into_iter().find(|place| place.is_file());
        let vmlinuz = vmlinuz.with_context(|| format!("no vmlinuz in {}", root.display()))?;
        Ok(Self {
            release,
            vmlinuz,
            modules,
        })
    }
}

/// Unpacks the kernel of a release into `folder/root`.
fn fetch(debian: &str, folder: &Path) -> anyhow::Result<()> {
    let root = folder.join("root");
    let packages = folder.join("packages");
    // apt does not make the folders of its own.
    let apts = ["state/lists/partial", "cache/archives/partial"].map(|name| folder.join(name));
    for made in [&root, &packages].into_iter().chain(&apts) {
        fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
    }
    let source = format!("deb [signed-by={KEYS}] {} {debian} main\n", mirror()?);
    let sources = folder.join("sources.list");
    fs::write(&sources, source).with_context(|| format!("cannot write {}", sources.display()))?;
    run(apt("apt-get", folder).args(["-qq", "update"]))?;
    let depends = output(
        apt("apt-cache", folder)
            .args(["depends", "--recurse", "--important"])
            .arg(PACKAGE),
    )?;
    run(apt("apt-get", folder)
        .current_dir(&packages)
        .args(["-qq", "download"])
        .args(kernel_packages(&depends)))?;
    for package in entries(&packages)? {
        run(Command::new("dpkg-deb")
            .arg("--extract")
            .args([&package, &root]))?;
    }
    // Newer packages know no /lib but the one in /usr.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))
            .with_context(|| format!("cannot make a link in {}", root.display()))?;
    }
    let Image { release, .. } = Image::unpacked(&root)?;
    run(Command::new("depmod")
        .arg("--basedir")
        .arg(&root)
        .arg(release))
}

/// `apt-get` or `apt-cache` in a folder of its own, where nothing is installed.
fn apt(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let mut option = |name: &str, value: &Path| {
        command.arg("-o").arg(format!("{name}={}", value.display()));
    };
    option("Dir::Etc::sourcelist", &folder.join("sources.list"));
    option("Dir::Etc::sourceparts", Path::new("/dev/null"));
    option("Dir::State", &folder.join("state"));
    option("Dir::State::status", Path::new("/dev/null"));
    option("Dir::Cache", &folder.join("cache"));
    command
        .args(["-o", "Acquire::Languages=none"])
        // Else root's apt complains that the user it downloads as cannot see root's cache.
        .args(["-o", "APT::Sandbox::User=root"]);
    command
}

/// The mirror of the Debian archive that this machine's own apt uses.
fn mirror() -> anyhow::Result<String> {
    let known = || -> anyhow::Result<Option<String>> {
        let listed = output(
            Command::new("apt-get")
                .args(["indextargets", "--format", "$(REPO_URI)"])
                .args(["Created-By: Packages", "Origin: Debian", "Label: Debian"]),
        )?;
        Ok(listed.lines().next().map(str::to_owned))
    };
    if let Some(mirror) = known()? {
        return Ok(mirror);
    }
    // apt tells origins only of what it has read.
    setup::update()?;
    match known()? {
        Some(mirror) => Ok(mirror),
        None => bail!("this machine's apt uses no mirror of Debian's archive"),
    }
}

/// Those that are the kernel's own, of the packages that `apt-cache depends` prints: each at the
/// start of a line, what it depends on indented below.
fn kernel_packages(depends: &str) -> Vec<&str> {
    let own = |line: &&str| line.starts_with("linux-") && line.ends_with(PACKAGE_END);
    depends.lines().filter(own).collect()
}

fn only_entry(folder: &Path) -> anyhow::Result<PathBuf> {
    match <[PathBuf; 1]>::try_from(entries(folder)?) {
        Ok([entry]) => Ok(entry),
        Err(entries) => bail!("{} holds {} entries", folder.display(), entries.len()),
    }
}

/// What is in a folder, in order.
pub(super) fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| {
        let paths = entries.map(|entry| Ok(entry?.path()));
        paths.collect::<std::io::Result<Vec<_>>>()
    });
    let mut entries = listed.with_context(|| format!("cannot list {}", folder.display()))?;
    entries.sort();
    Ok(entries)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_in_one_package_or_in_several() {
        let bookworm = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n\
                        linux-image-6.1.0-50-cloud-amd64\n  Depends: kmod\n  Depends: linux-base\n\
                        kmod\n  Depends: libc6\nlinux-base\n<linux-initramfs-tool>\n";
        assert_eq!(
            kernel_packages(bookworm),
            [
                "linux-image-cloud-amd64",
                "linux-image-6.1.0-50-cloud-amd64"
            ]
        );
        let sid = "linux-image-7.2.13+deb14-cloud-amd64\n  Depends: dracut\n \
                   |Depends: linux-modules-7.2.13+deb14-cloud-amd64\ndracut\n\
                   linux-modules-7.2.13+deb14-cloud-amd64\n";
        assert_eq!(
            kernel_packages(sid),
            [
                "linux-image-7.2.13+deb14-cloud-amd64",
                "linux-modules-7.2.13+deb14-cloud-amd64"
            ]
        );
    }
}
