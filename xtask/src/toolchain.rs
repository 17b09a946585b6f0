//! What builds the BPF object: found, never installed, here.
//!
//! Used by `xtask` and by build scripts (`observer-ebpf/object.rs`), so it needs the standard
//! library alone.
//!
//! Two ways lead to the object; the first complete one is taken:
//! 1. the aya convention: rustup's nightly with `rust-src`, and on `PATH` a `bpf-linker` of the
//!    same LLVM as that rustc's;
//! 2. the distribution's: rustc, cargo and the library's sources from Debian's packages, and a
//!    `bpf-linker` that `cargo xtask setup` built against the same LLVM into a cache folder.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The `bpf-linker` of the distribution's way.
pub(crate) const BPF_LINKER: &str = "0.13.0";
/// The LLVM major version of the distribution's way.
pub(crate) const LLVM: &str = "22";

/// What the objects run on: BPF of this machine's byte order.
pub(crate) const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

const DISTRIBUTION_BIN: &str = "/usr/bin";
const DISTRIBUTION_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core";

/// What cargo and rustup say to their children. The build of the object is a build of its own:
/// another compiler, another target, other flags.
const NOT_INHERITED: [&str; 9] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTUP_TOOLCHAIN",
];

/// A way that is complete on this machine.
#[derive(Debug)]
pub(crate) enum Toolchain {
    /// The aya convention.
    Nightly {
        /// The linker on `PATH`.
        linker: PathBuf,
    },
    /// The distribution's packages.
    Distribution {
        /// The linker in the cache folder.
        linker: PathBuf,
    },
}

/// Neither way is complete: what each lacks.
#[derive(Debug)]
pub(crate) struct Missing {
    nightly: String,
    distribution: String,
}

impl Toolchain {
    /// Looks for both ways, in order.
    pub(crate) fn find() -> Result<Self, Missing> {
        let nightly = match nightly() {
            Ok(linker) => return Ok(Self::Nightly { linker }),
            Err(lack) => lack,
        };
        let distribution = match distribution() {
            Ok(linker) => return Ok(Self::Distribution { linker }),
            Err(lack) => lack,
        };
        Err(Missing {
            nightly,
            distribution,
        })
    }

    /// `cargo SUBCOMMAND` on the BPF programs; artefacts go to `target_directory`.
    pub(crate) fn cargo(
        &self,
        subcommand: &str,
        workspace: &Path,
        target_directory: &Path,
    ) -> Command {
        let (mut command, linker) = match self {
            Self::Nightly { linker } => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", subcommand]);
                (command, linker)
            }
            Self::Distribution { linker } => {
                let program = |name| Path::new(DISTRIBUTION_BIN).join(name);
                // cargo looks for `cargo-clippy` in its own home first, where rustup's is.
                let mut command = match subcommand {
                    "clippy" => Command::new(program("cargo-clippy")),
                    _ => Command::new(program("cargo")),
                };
                command.arg(subcommand);
                (command, linker)
            }
        };
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        if matches!(self, Self::Distribution { .. }) {
            command
                .env("CARGO", Path::new(DISTRIBUTION_BIN).join("cargo"))
                .env("RUSTC", Path::new(DISTRIBUTION_BIN).join("rustc"))
                // Lets a stable compiler take `-Z build-std`: there is no `core` for BPF but the
                // one built here.
                .env("RUSTC_BOOTSTRAP", "1");
        }
        command
            .env(
                "RUSTFLAGS",
                format!(
                    "-C linker={} -C debuginfo=2 -C link-arg=--btf",
                    linker.display()
                ),
            )
            .current_dir(workspace)
            .args(["--locked", "--release", "--package", "observer-ebpf"])
            .args(["--features", "program", "--bins"])
            .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
            .arg(target_directory);
        command
    }
}

/// Where `cargo xtask setup` puts what it builds: a folder of the user's cache.
pub(crate) fn cache() -> Option<PathBuf> {
    let set = |variable| {
        env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("source-ip-observer"))
}

/// Where the linker of the distribution's way is installed: a `cargo install --root`.
pub(crate) fn linker_root() -> Option<PathBuf> {
    Some(cache()?.join(format!("bpf-linker-{BPF_LINKER}-llvm{LLVM}")))
}

/// The linker of the aya convention, or what that lacks.
fn nightly() -> Result<PathBuf, String> {
    let rustc = |argument: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "rustc"]).args(argument);
        output(&mut command)
    };
    let sysroot = rustc(&["--print", "sysroot"]).ok_or("there is no rustup nightly")?;
    if !Path::new(sysroot.trim())
        .join("lib/rustlib/src/rust/library/core")
        .is_dir()
    {
        return Err("rustup's nightly lacks rust-src".to_owned());
    }
    let version = rustc(&["-vV"]).unwrap_or_default();
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next())
        .ok_or("rustup's nightly does not name its LLVM")?;
    let linker = on_path("bpf-linker").ok_or("there is no bpf-linker on PATH")?;
    if !is_of_llvm(&linker, llvm) {
        return Err(format!(
            "{} is not built with LLVM {llvm} as rustup's nightly is",
            linker.display()
        ));
    }
    Ok(linker)
}

/// The linker of the distribution's way, or what that lacks.
fn distribution() -> Result<PathBuf, String> {
    for program in ["rustc", "cargo", "cargo-clippy"] {
        let path = Path::new(DISTRIBUTION_BIN).join(program);
        if !path.is_file() {
            return Err(format!("there is no {}", path.display()));
        }
    }
    if !Path::new(DISTRIBUTION_SOURCES).is_dir() {
        return Err(format!("there is no {DISTRIBUTION_SOURCES}"));
    }
    let linker = linker_root()
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?
        .join("bin/bpf-linker");
    let version = output(Command::new(&linker).arg("--version"))
        .ok_or_else(|| format!("there is no {}", linker.display()))?;
    if version.trim() != format!("bpf-linker {BPF_LINKER}") {
        return Err(format!("{} is {}", linker.display(), version.trim()));
    }
    Ok(linker)
}

/// What a command that succeeds prints.
fn output(command: &mut Command) -> Option<String> {
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Whether a `bpf-linker` carries that LLVM. It does not say so itself; but linked statically it
/// holds the mark that LLVM leaves in bitcode, linked dynamically the library's name.
fn is_of_llvm(linker: &Path, major: &str) -> bool {
    let Ok(program) = fs::read(linker) else {
        return false;
    };
    let marks = [
        format!("LLVM{major}."),
        format!("libLLVM.so.{major}"),
        format!("libLLVM-{major}"),
    ];
    marks.iter().any(|mark| {
        program
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
    })
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nightly { linker } => {
                write!(f, "rustup's nightly with {}", linker.display())
            }
            Self::Distribution { linker } => {
                write!(f, "the distribution's rustc with {}", linker.display())
            }
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nightly,
            distribution,
        } = self;
        write!(
            f,
            "nothing here builds the BPF programs ({nightly}; {distribution}): run \
             `cargo xtask setup` as root on Debian, or install rustup's nightly with rust-src \
             and bpf-linker"
        )
    }
}
