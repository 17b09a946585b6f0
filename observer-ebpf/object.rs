//! How a build script gets a BPF object: by a cargo of its own.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use toolchain::{TARGET, Toolchain};

/// Builds the programs and copies one object into the folder that `include_bytes_aligned!` reads.
/// `sources` are the files and folders of observer-ebpf whose change makes another object.
pub(crate) fn build(object: &str, sources: &[&str]) -> Result<(), String> {
    let path = |variable| {
        env::var_os(variable)
            .map(PathBuf::from)
            .ok_or_else(|| format!("cargo did not set {variable}"))
    };
    let workspace = path("CARGO_MANIFEST_DIR")?.join("..");
    let out = path("OUT_DIR")?;
    let own = ["Cargo.toml", "object.rs"];
    let own = own.iter().chain(sources);
    let own = own.map(|source| format!("observer-ebpf/{source}"));
    let shared = ["Cargo.lock", "xtask/src/toolchain.rs"].map(str::to_owned);
    for watched in own.chain(shared) {
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
    let built = target.join(TARGET).join("release").join(object);
    fs::copy(&built, out.join(object))
        .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

/// Where this build's artefacts go. Cargo does not say, but marks it as a cache; one object then
/// serves every profile.
fn target_directory(out: &Path) -> &Path {
    out.ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        .unwrap_or(out)
}
