//! Pods that want one port of one node: said only where they cannot keep out of each other's way.

use std::collections::{BTreeSet, HashMap};

use super::super::Protocol;
use super::super::finding::Finding;
use super::super::workload::{Runs, Workload};
use super::HostPort;
use super::room::{Room, is_choosy, is_wider};

/// So many workloads are compared for a port, each with each.
const MOST: usize = 64;

type Taken<'a, 'o> = (&'a Workload<'o>, HostPort);

pub(super) fn conflicts<'o>(
    on_nodes: &[(&Workload<'o>, Vec<HostPort>)],
    room: &Room<'o>,
) -> Vec<Finding> {
    let mut by_port: HashMap<(Protocol, u16), Vec<Taken<'_, 'o>>> = HashMap::new();
    for (workload, ports) in on_nodes {
        for &port in ports {
            let takers = by_port.entry((port.protocol, port.port)).or_default();
            if takers.len() < MOST {
                takers.push((workload, port));
            }
        }
    }
    by_port
        .values()
        .flat_map(|takers| of_port(takers, room))
        .collect()
}

fn of_port<'o>(takers: &[Taken<'_, 'o>], room: &Room<'o>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, &(one, port)) in takers.iter().enumerate() {
        if has_too_many(one, room) {
            found.push(finding(port, one, one));
        }
        for &(other, its) in takers.iter().skip(index + 1) {
            let is_itself = std::ptr::eq(one, other);
            if !is_itself && port.clashes(its) && must_meet(one, other, room) {
                found.push(finding(port, one, other));
            }
        }
    }
    found
}

fn finding(port: HostPort, one: &Workload<'_>, other: &Workload<'_>) -> Finding {
    let (one, other) = (one.to_string(), other.to_string());
    let (one, other) = if one <= other {
        (one, other)
    } else {
        (other, one)
    };
    Finding::HostPortConflict {
        port: format!("{}/{}", port.port, port.protocol),
        one,
        other,
    }
}

/// Whether there are more replicas than nodes for them.
fn has_too_many<'o>(workload: &Workload<'o>, room: &Room<'o>) -> bool {
    let Runs::Replicas(replicas) = workload.runs else {
        return false;
    };
    room.eligible(workload)
        .is_some_and(|nodes| count(replicas) > nodes.len())
}

/// Whether two workloads cannot keep to nodes of their own.
fn must_meet<'o>(one: &Workload<'o>, other: &Workload<'o>, room: &Room<'o>) -> bool {
    let both_run = !one.nodes.is_empty() && !other.nodes.is_empty();
    if both_run && one.nodes.is_disjoint(&other.nodes) {
        // They do keep out of each other's way, whatever their objects say.
        return false;
    }
    match (one.runs, other.runs) {
        (Runs::Everywhere, Runs::Everywhere) => both_everywhere(one, other, room),
        (Runs::Everywhere, Runs::Replicas(1..)) => is_covered(other, one, room),
        (Runs::Replicas(1..), Runs::Everywhere) => is_covered(one, other, room),
        (Runs::Replicas(its), Runs::Replicas(others)) => {
            let (Some(its_nodes), Some(others_nodes)) = (room.eligible(one), room.eligible(other))
            else {
                return false;
            };
            let nodes: BTreeSet<_> = its_nodes.union(&others_nodes).collect();
            its > 0 && others > 0 && count(its) + count(others) > nodes.len()
        }
        (Runs::Bound, Runs::Bound) => !one.nodes.is_disjoint(&other.nodes),
        _ => false,
    }
}

fn both_everywhere<'o>(one: &Workload<'o>, other: &Workload<'o>, room: &Room<'o>) -> bool {
    match (room.eligible(one), room.eligible(other)) {
        (Some(one), Some(other)) => !one.is_disjoint(&other),
        _ if is_choosy(one.spec) || is_choosy(other.spec) => false,
        // Wherever the narrower one is, the wider one is too.
        _ => is_wider(one.spec, other.spec) || is_wider(other.spec, one.spec),
    }
}

/// Whether wherever a replica goes, there is the `DaemonSet` already.
fn is_covered<'o>(replica: &Workload<'o>, daemon: &Workload<'o>, room: &Room<'o>) -> bool {
    if let (Some(its), Some(daemons)) = (room.eligible(replica), room.eligible(daemon)) {
        return !its.is_empty() && its.is_subset(&daemons);
    }
    let tolerations =
        |workload: &Workload<'_>| workload.spec.tolerations.clone().unwrap_or_default();
    let of_daemon = tolerations(daemon);
    !is_choosy(daemon.spec)
        && is_wider(daemon.spec, replica.spec)
        && tolerations(replica).iter().all(|it| of_daemon.contains(it))
}

fn count(replicas: i32) -> usize {
    usize::try_from(replicas).unwrap_or(0)
}
