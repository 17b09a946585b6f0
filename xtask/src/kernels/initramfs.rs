//! The root file system of a virtual machine: an archive that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use cpio::newc::{self, Builder, ModeFileType};

use crate::folders::entries;
use crate::process::output;

/// An archive that is being written.
pub(super) struct Initramfs {
    path: PathBuf,
    archive: BufWriter<File>,
    written: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// An empty one.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            archive: BufWriter::new(file),
            written: BTreeSet::new(),
        })
    }

    /// Ends it.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Self { path, archive, .. } = self;
        newc::trailer(archive)
            .and_then(|mut archive| archive.flush())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// A program of this machine, with the libraries that it is linked to, at the paths where
    /// the dynamic linker looks for them. Without what only a debugger reads, which is most of a
    /// program that cargo built.
    pub(super) fn program(&mut self, from: &Path, at: &Path) -> anyhow::Result<()> {
        let stripped = self.path.with_extension("stripped");
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg("-o").args([&stripped, from]);
        output(&mut strip)?;
        self.file(&stripped, at)?;
        let libraries = output(Command::new("ldd").arg(from))?;
        for library in linked(&libraries) {
            self.file(library, library)?;
        }
        Ok(())
    }

    /// A folder and all in it.
    pub(super) fn folder(&mut self, from: &Path, at: &Path) -> anyhow::Result<()> {
        for entry in entries(from)? {
            let at = at.join(entry.file_name().unwrap_or_default());
            if entry.is_dir() {
                self.folder(&entry, &at)?;
            } else {
                self.file(&entry, &at)?;
            }
        }
        Ok(())
    }

    /// A file, links followed, and the folders above it. The first file at a path stays.
    pub(super) fn file(&mut self, from: &Path, at: &Path) -> anyhow::Result<()> {
        if self.written.contains(at) {
            return Ok(());
        }
        let mut above: Vec<_> = at.ancestors().skip(1).collect();
        // The root itself is there.
        above.pop();
        for folder in above.into_iter().rev() {
            self.entry(folder, ModeFileType::Directory, 0o755, &[])?;
        }
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        // Who may execute a library or a module does not matter, and a program must be.
        self.entry(at, ModeFileType::Regular, 0o755, &content)
    }

    fn entry(
        &mut self,
        at: &Path,
        kind: ModeFileType,
        permissions: u32,
        content: &[u8],
    ) -> anyhow::Result<()> {
        if !self.written.insert(at.to_owned()) {
            return Ok(());
        }
        let name = at.to_str().context("a path is not UTF-8")?;
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for an initramfs"))?;
        let header = Builder::new(name.trim_start_matches('/'))
            .mode(permissions)
            .set_mode_file_type(kind);
        let mut writer = header.write(&mut self.archive, size);
        writer
            .write_all(content)
            .and_then(|()| writer.finish())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(())
    }
}

/// The paths in what `ldd` prints.
fn linked(libraries: &str) -> impl Iterator<Item = &Path> {
    libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_where_ldd_says() {
        let printed = "\tlinux-vdso.so.1 (0x00007f9)\n\
                       \tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f8)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f7)\n";
        let found: Vec<_> = linked(printed).collect();
        let expected = [
            "/lib/x86_64-linux-gnu/libm.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, expected.map(Path::new));
    }
}
