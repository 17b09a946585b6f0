//! What is attached to the interfaces of a namespace, and what of it the kernel still holds, by
//! the kernel's own answers.
//!
//! bpftool is not asked: the one of Debian 12 does not list TCX links.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::{Map, MapData, MapInfo, PerCpuArray, loaded_maps},
    programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType, loaded_programs},
};
use nix::{errno::Errno, net::if_::if_nameindex};
use serde_json::Value;

use crate::{command, netns::Namespace};

/// The sides of an interface.
pub const SIDES: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// The ids of the programs attached to the interfaces of a namespace, by TCX or by a filter.
pub fn programs(namespace: &Namespace) -> Result<BTreeSet<u32>> {
    let mut programs = BTreeSet::new();
    for interface in interfaces(namespace)? {
        for side in SIDES {
            programs.extend(chain(namespace, &interface, side)?);
        }
    }
    Ok(programs)
}

/// The ids of the programs on one side of an interface, in the order in which they run.
pub fn chain(namespace: &Namespace, interface: &str, side: TcAttachType) -> Result<Vec<u32>> {
    let mut chain = namespace.run(|| tcx(interface, side))??.unwrap_or_default();
    chain.extend(filters(namespace, interface, side)?);
    Ok(chain)
}

/// Whether the kernel has TCX.
pub fn has_tcx() -> Result<bool> {
    Ok(tcx("lo", TcAttachType::Ingress)?.is_some())
}

/// The maps of those of `programs` that the kernel still holds.
pub fn maps(programs: &BTreeSet<u32>) -> Result<BTreeSet<u32>> {
    let mut maps = BTreeSet::new();
    for program in loaded(programs) {
        maps.extend(program.map_ids()?.context("a program tells no maps")?);
    }
    Ok(maps)
}

/// Those of `programs` that the kernel still holds.
pub fn surviving_programs(programs: &BTreeSet<u32>) -> BTreeSet<u32> {
    loaded(programs).map(|program| program.id()).collect()
}

/// Those of `maps` that the kernel still holds.
pub fn surviving_maps(maps: &BTreeSet<u32>) -> BTreeSet<u32> {
    let loaded = loaded_maps().flatten().map(|map| map.id());
    loaded.filter(|id| maps.contains(id)).collect()
}

fn loaded(programs: &BTreeSet<u32>) -> impl Iterator<Item = ProgramInfo> {
    // One that ends while they are listed is an error, and gone.
    let loaded = loaded_programs().flatten();
    loaded.filter(|program| programs.contains(&program.id()))
}

/// The values of the one of `maps` that is a per-CPU array of this name, over all CPUs.
pub fn per_cpu_array(maps: &BTreeSet<u32>, name: &str) -> Result<Vec<u64>> {
    let has_name =
        |id: &&u32| MapInfo::from_id(**id).is_ok_and(|map| map.name_as_str() == Some(name));
    let id = maps.iter().find(has_name);
    let id = *id.with_context(|| format!("there is no map {name}"))?;
    let array = PerCpuArray::<_, u64>::try_from(Map::from_map_data(MapData::from_id(id)?)?)?;
    (0..array.len())
        .map(|index| Ok(array.get(&index, 0)?.iter().sum()))
        .collect()
}

/// The clsact and ingress qdiscs of a namespace, as `tc` prints them.
pub fn qdiscs(namespace: &Namespace) -> Result<Vec<String>> {
    let text = command::run(namespace.command("tc").args(["qdisc", "show"]))?;
    Ok(text
        .lines()
        .filter(|line| line.contains("clsact") || line.contains("ingress"))
        .map(str::to_owned)
        .collect())
}

fn interfaces(namespace: &Namespace) -> Result<Vec<String>> {
    let list = || {
        let interfaces = if_nameindex().context("failed to list the interfaces")?;
        Ok(interfaces
            .iter()
            .map(|interface| interface.name().to_string_lossy().into_owned())
            .collect())
    };
    namespace.run(list)?
}

/// In the calling thread's namespace. None before Linux 6.6, which does not know the hook.
fn tcx(interface: &str, side: TcAttachType) -> Result<Option<Vec<u32>>> {
    match SchedClassifier::query_tcx(interface, side) {
        Ok((_, programs)) => Ok(Some(programs.iter().map(ProgramInfo::id).collect())),
        Err(ProgramError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(Errno::EINVAL as i32) =>
        {
            Ok(None)
        }
        Err(error) => {
            Err(error).with_context(|| format!("failed to list the TCX links of {interface}"))
        }
    }
}

fn filters(namespace: &Namespace, interface: &str, side: TcAttachType) -> Result<Vec<u32>> {
    let side = match side {
        TcAttachType::Ingress => "ingress",
        TcAttachType::Egress => "egress",
        TcAttachType::Custom(_) => bail!("tc has no name for the side {side:?}"),
    };
    let arguments = ["-json", "filter", "show", "dev", interface, side];
    let text = command::run(namespace.command("tc").args(arguments))?;
    let filters: Vec<Value> = serde_json::from_str(&text)
        .with_context(|| format!("tc filter printed no list: {text}"))?;
    filters
        .iter()
        .filter_map(|filter| filter.pointer("/options/prog/id")?.as_u64())
        .map(|id| u32::try_from(id).context("an id is too large"))
        .collect()
}
