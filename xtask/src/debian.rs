//! Packages of any Debian release, unpacked into the cache folder.
//!
//! By apt, from the mirror that this machine's own apt uses, and into folders of its own: what the
//! machine has installed, and from which releases, is neither looked at nor changed, and nothing
//! that is unpacked runs by itself. apt verifies the release by Debian's keys and the packages by
//! the release.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::folders;
use crate::process::{output, run};
use crate::{setup, toolchain};

/// Signs every Debian release. From the package debian-archive-keyring, on which Debian's apt
/// depends.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What a release offers, as it was when it was read.
#[derive(Debug)]
pub(crate) struct Archive {
    /// apt's own files: what a release offers, and packages on their way.
    folder: PathBuf,
    /// Nobody else reads the same meanwhile.
    _held_to_the_end: File,
}

impl Archive {
    /// Reads what a release (`bookworm`) offers.
    pub(crate) fn read(release: &str) -> anyhow::Result<Self> {
        let cache = toolchain::cache().context("neither XDG_CACHE_HOME nor HOME is set")?;
        let folder = cache.join("apt").join(release);
        let held_to_the_end = folders::lock(&folder.with_added_extension("lock"))?;
        folders::remove(&folder)?;
        // apt does not make the folders of its own.
        for apts in ["state/lists/partial", "cache/archives/partial", "packages"] {
            folders::make(&folder.join(apts))?;
        }
        let source = format!("deb [signed-by={KEYS}] {} {release} main\n", mirror()?);
        let sources = folder.join("sources.list");
        fs::write(&sources, source)
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let archive = Self {
            folder,
            _held_to_the_end: held_to_the_end,
        };
        run(archive.apt("apt-get").args(["-qq", "update"]))?;
        Ok(archive)
    }

    /// What `apt-cache depends` prints of all that a package depends on: each at the start of a
    /// line, what it depends on indented below.
    pub(crate) fn depends(&self, package: &str) -> anyhow::Result<String> {
        output(
            self.apt("apt-cache")
                .args(["depends", "--recurse", "--important", package]),
        )
    }

    /// Fetches packages, without what they depend on, and unpacks them into `root`.
    pub(crate) fn unpack(&self, packages: &[&str], root: &Path) -> anyhow::Result<()> {
        let fetched = self.folder.join("packages");
        run(self
            .apt("apt-get")
            .current_dir(&fetched)
            .args(["-qq", "download"])
            .args(packages))?;
        for package in folders::entries(&fetched)? {
            run(Command::new("dpkg-deb")
                .arg("--extract")
                .args([package.as_path(), root]))?;
            fs::remove_file(&package)
                .with_context(|| format!("cannot remove {}", package.display()))?;
        }
        Ok(())
    }

    /// `apt-get` or `apt-cache` in a folder of its own, where nothing is installed.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut option = |name: &str, value: &Path| {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        };
        option("Dir::Etc::sourcelist", &self.folder.join("sources.list"));
        option("Dir::Etc::sourceparts", Path::new("/dev/null"));
        option("Dir::State", &self.folder.join("state"));
        option("Dir::State::status", Path::new("/dev/null"));
        option("Dir::Cache", &self.folder.join("cache"));
        command
            .args(["-o", "Acquire::Languages=none"])
            // Else root's apt complains that the user it downloads as cannot see root's cache.
            .args(["-o", "APT::Sandbox::User=root"]);
        command
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // What stays is removed when the release is read again.
        let _stays = fs::remove_dir_all(&self.folder);
    }
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
