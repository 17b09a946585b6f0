//! Files, directories and the standard input, as `kubectl -f` takes them
//! (`k8s.io/cli-runtime`, `pkg/resource/visitor.go`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Source;
use super::problem::Problem;

/// The standard input, as an option names it.
const STDIN: &str = "-";
/// What it is called in problems.
const STDIN_NAME: &str = "stdin";
/// More than the manifests of any cluster take.
const BYTES_MAX: u64 = 256 << 20;
/// How deep directories are looked through.
const DEPTH_MAX: usize = 32;
/// What manifests in a directory end with (`resource.FileExtensions`).
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Reads all of them, and tells which cannot be read.
pub(super) fn read(paths: &[PathBuf], recursive: bool) -> (Vec<Source>, Vec<Problem>) {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let found = if path.as_os_str() == STDIN {
            Ok(vec![path.clone()])
        } else {
            files(path, recursive)
        };
        match found {
            Ok(found) => {
                for path in found {
                    if seen.insert(path.clone()) {
                        take(&path, &mut sources, &mut problems);
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    (sources, problems)
}

fn take(path: &Path, sources: &mut Vec<Source>, problems: &mut Vec<Problem>) {
    let (name, bytes) = if path.as_os_str() == STDIN {
        (STDIN_NAME.to_owned(), limited(io::stdin().lock()))
    } else {
        (
            path.display().to_string(),
            File::open(path).and_then(limited),
        )
    };
    match bytes {
        Ok(bytes) => sources.push(Source { name, bytes }),
        Err(error) => problems.push(unreadable(&name, &error)),
    }
}

fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut from = from.take(BYTES_MAX);
    from.read_to_end(&mut bytes)?;
    if from.limit() == 0 {
        return Err(io::Error::other("it is larger than 256 MiB"));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &io::Error) -> Problem {
    Problem::of_file(name, format!("cannot be read: {error}"))
}

/// A file, or the manifests in a directory, in the order of their names.
fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, Problem> {
    let problem = |error: io::Error| unreadable(&path.display().to_string(), &error);
    if !fs::metadata(path).map_err(problem)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    below(path, recursive, 0, &mut found)?;
    if found.is_empty() {
        let name = path.display().to_string();
        let what = if recursive {
            "there are no manifests (.yaml, .yml, .json) in this directory"
        } else {
            "there are no manifests (.yaml, .yml, .json) in this directory; -R looks below it too"
        };
        return Err(Problem::of_file(&name, what));
    }
    Ok(found)
}

fn below(
    directory: &Path,
    recursive: bool,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), Problem> {
    let problem = |error: io::Error| unreadable(&directory.display().to_string(), &error);
    let entries: io::Result<Vec<_>> = fs::read_dir(directory).map_err(problem)?.collect();
    let mut entries = entries.map_err(problem)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // As `filepath.Walk`: a link to a directory is not gone into, one to a file is read.
        if entry.file_type().map_err(problem)?.is_dir() {
            if recursive && depth < DEPTH_MAX {
                below(&path, recursive, depth + 1, found)?;
            }
        } else if path
            .extension()
            .is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
        {
            found.push(path);
        }
    }
    Ok(())
}
