//! The first part of the way, where a proxy on the node made another connection of it.
//!
//! ```text
//! through 203.0.113.50:49507 → NodePort 172.31.0.11:30443 → ingress/nginx → ingress-5d4c
//!   · LOST at node1 · opened 1500 µs before · exact
//! ```

use super::paint::{bind, clean};
use super::table::{is_before, service, socket};
use super::{microseconds, word};
use crate::record::{Confidence, Record, Through};
use crate::verdict::SourceIp;

/// Its line, if there is one.
pub(super) fn line(record: &Record) -> Option<String> {
    let through = record.through.as_ref()?;
    let mut parts = vec![way(through), source(through)];
    parts.extend(through.opened_before_ns.map(|before| {
        let before = microseconds(before);
        bind(&format!("opened {before} µs before"))
    }));
    parts.push(match through.confidence {
        Confidence::Ambiguous => bind(&format!("one of {}", through.candidates)),
        confidence => word(&confidence),
    });
    Some(parts.join(&format!(" {}", bind("· "))))
}

/// `client → front door → service → proxy`.
fn way(through: &Through) -> String {
    let client = through.client.map_or_else(
        || "a client that is not known".to_owned(),
        |client| match client.port {
            Some(port) => socket(client.ip, port),
            None => client.ip.to_string(),
        },
    );
    let mut stations = vec![format!("through {client}")];
    stations.extend(through.front_door.map(|door| {
        let kind = door
            .kind
            .map_or_else(String::new, |kind| format!("{kind} "));
        format!("{kind}{}", socket(door.ip, door.port))
    }));
    stations.extend(through.service.as_ref().map(service));
    let pod = through.proxy.pod.as_deref();
    stations.push(pod.map_or_else(|| format!("proxy {}", through.proxy.ip), clean));
    let stations: Vec<_> = stations.iter().map(|station| bind(station)).collect();
    stations.join(&format!(" {}", bind("→ ")))
}

fn source(through: &Through) -> String {
    let what = word(&through.source_ip).to_uppercase();
    let at = through.lost_at.as_ref();
    match at.filter(|_| through.source_ip == SourceIp::Lost) {
        Some(at) => {
            let kind = through.client.map(|client| client.kind);
            let before = if is_before(at, kind) {
                "before this node"
            } else {
                "at a proxy"
            };
            let node = at.node.as_deref().map(clean);
            let place = node.map_or_else(|| before.to_owned(), |node| format!("at {node}"));
            bind(&format!("{what} {place}"))
        }
        None => what,
    }
}
