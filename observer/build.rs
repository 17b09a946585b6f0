//! Builds the BPF object that `kernel::programs` embeds, by a cargo of its own.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use toolchain::{OBJECT, TARGET, Toolchain};

fn main() {
    if let Err(why) = run() {
        println!("cargo::error={why}");
    }
}

fn run() -> Result<(), String> {
    let path = |variable| {
        env::var_os(variable)
            .map(PathBuf::from)
            .ok_or_else(|| format!("cargo did not set {variable}"))
    };
    let workspace = path("CARGO_MANIFEST_DIR")?.join("..");
    let out = path("OUT_DIR")?;
    for watched in [
        "observer-ebpf/src",
        "observer-ebpf/Cargo.toml",
        "Cargo.lock",
        "xtask/src/toolchain.rs",
    ] {
        let watched = workspace.join(watched);
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let toolchain = Toolchain::find().map_err(|missing| missing.to_string())?;
    let target = target_directory(&out).join("ebpf");
    let status = toolchain
        .cargo("build", &workspace, &target)
        .status()
        .map_err(|error| format!("cannot start the build of the BPF programs: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the BPF programs do not build by {toolchain} ({status}); its complaint is above"
        ));
    }
    let object = target.join(TARGET).join("release").join(OBJECT);
    fs::copy(&object, out.join(OBJECT))
        .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    Ok(())
}

/// Where this build's artefacts go. Cargo does not say, but marks it as a cache; one object then
/// serves every profile.
fn target_directory(out: &Path) -> &Path {
    out.ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        .unwrap_or(out)
}
