//! What will happen at a Service's front doors, as a table for people, with what is equal folded,
//! and as JSON, with nothing folded.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::paint::clean;
use super::word;
use crate::cluster::{FrontDoorKind, ServiceEntry};
use crate::verdict::{ClientKind, Explained, OutcomeCauseCode, Prediction};

/// Rows of the table that are alike but for their nodes and addresses.
struct Row<'a> {
    door: FrontDoorKind,
    port: u16,
    client: ClientKind,
    prediction: &'a Prediction,
    addresses: Vec<IpAddr>,
    nodes: Vec<&'a str>,
}

/// A heading and a table for each Service port, in the order of `explained`.
pub fn matrix(explained: &[Explained<'_>]) -> String {
    explained
        .chunk_by(|one, next| std::ptr::eq(one.entry, next.entry))
        .filter_map(|of_entry| Some((of_entry.first()?.entry, of_entry)))
        .map(|(entry, of_entry)| format!("{}\n{}\n", heading(entry), table(of_entry)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `shop/web:http, TCP, type NodePort, externalTrafficPolicy Cluster`.
fn heading(entry: &ServiceEntry) -> String {
    let service = &entry.service;
    format!(
        "{}, {}, type {:?}, externalTrafficPolicy {}, internalTrafficPolicy {}",
        clean(&entry.service_port().to_string()),
        entry.protocol,
        service.service_type,
        service.external_traffic_policy,
        service.internal_traffic_policy
    )
}

fn table(explained: &[Explained<'_>]) -> Table {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for one in explained {
        let same = rows.iter().position(|row| {
            (row.door, row.port, row.client) == (one.door, one.port, one.client)
                && *row.prediction == one.prediction
        });
        let place = same.unwrap_or_else(|| {
            rows.push(Row {
                door: one.door,
                port: one.port,
                client: one.client,
                prediction: &one.prediction,
                addresses: Vec::new(),
                nodes: Vec::new(),
            });
            rows.len() - 1
        });
        let row = &mut rows[place];
        if !row.addresses.contains(&one.address) {
            row.addresses.push(one.address);
        }
        if !row.nodes.contains(&&*one.node.name) {
            row.nodes.push(&one.node.name);
        }
    }
    rows.sort_by_key(|row| row.door);
    let all_nodes: BTreeSet<_> = explained.iter().map(|one| &*one.node.name).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "FRONT DOOR",
        "BY NODE",
        "CLIENT",
        "SOURCE IP",
        "EXTRA HOPS",
        "OUTCOME",
        "WHY",
    ]);
    for row in &rows {
        table.add_row(cells(row, all_nodes.len()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn cells(row: &Row<'_>, all_nodes: usize) -> [String; 7] {
    let Row {
        door,
        port,
        client,
        prediction,
        addresses,
        nodes,
    } = row;
    let Prediction {
        source_ip,
        cause,
        outcome,
        outcome_cause,
        extra_hops,
        basis: _,
        doubt: _,
    } = prediction;
    // A node port is the same at every address, but for those where it is not served.
    let is_told_apart = prediction.outcome_cause == Some(OutcomeCauseCode::NotANodePortAddress)
        || addresses.iter().all(IpAddr::is_loopback);
    let door = if *door == FrontDoorKind::NodePort && !is_told_apart {
        format!("{door} {port}")
    } else {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| SocketAddr::new(*address, *port).to_string())
            .collect();
        format!("{door} {}", addresses.join("\n  "))
    };
    let nodes = if all_nodes > 1 && nodes.len() == all_nodes {
        "every".to_owned()
    } else {
        let nodes: Vec<_> = nodes.iter().map(|node| clean(node)).collect();
        nodes.join("\n")
    };
    let hops = extra_hops.as_ref().map_or_else(
        || "-".to_owned(),
        |hops| match (hops.start(), hops.end()) {
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        },
    );
    let why = match (outcome_cause, cause) {
        (Some(why), _) => word(why),
        (None, Some(why)) => word(why),
        (None, None) => "-".to_owned(),
    };
    [
        door,
        nodes,
        word(client),
        word(source_ip),
        hops,
        word(outcome),
        why,
    ]
}

/// One object for each front door, node and kind of client.
pub fn matrix_json(explained: &[Explained<'_>]) -> Value {
    explained
        .iter()
        .map(|one| {
            let Explained {
                entry,
                door,
                address,
                port,
                node,
                client,
                prediction,
            } = one;
            let Prediction {
                source_ip,
                cause,
                outcome,
                outcome_cause,
                extra_hops,
                basis,
                doubt: _,
            } = prediction;
            let service = &entry.service.reference;
            json!({
                "service": {
                    "namespace": &*service.namespace,
                    "name": &*service.name,
                    "port": entry.name.as_deref(),
                },
                "protocol": entry.protocol,
                "front_door": {"kind": door, "ip": address, "port": port},
                "node": &*node.name,
                "client": client,
                "source_ip": source_ip,
                "source_seen": prediction.source_seen(),
                "cause": cause,
                "outcome": outcome,
                "outcome_cause": outcome_cause,
                "extra_hops": extra_hops.as_ref().map(|hops| {
                    json!({"least": hops.start(), "most": hops.end()})
                }),
                "basis": basis,
                "why": prediction.why(),
            })
        })
        .collect()
}
