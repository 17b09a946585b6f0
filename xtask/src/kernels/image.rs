//! Debian's kernel images, fetched once into the cache folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::debian::Archive;
use crate::folders::{self, entries};
use crate::process::run;
use crate::toolchain;

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
        let _held_to_the_end = folders::lock(&cache)?;
        let root = cache.join(debian);
        if update || !root.exists() {
            folders::renew(&root, |partial| fetch(debian, partial))?;
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

/// Unpacks the kernel of a release into `root`.
fn fetch(debian: &str, root: &Path) -> anyhow::Result<()> {
    let archive = Archive::read(debian)?;
    let depends = archive.depends(PACKAGE)?;
    archive.unpack(&kernel_packages(&depends), root)?;
    // Newer packages know no /lib but the one in /usr.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))
            .with_context(|| format!("cannot make a link in {}", root.display()))?;
    }
    let Image { release, .. } = Image::unpacked(root)?;
    run(Command::new("depmod")
        .arg("--basedir")
        .arg(root)
        .arg(release))
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
