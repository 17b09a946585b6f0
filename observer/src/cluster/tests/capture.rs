//! The objects of a recorded cluster.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;

use super::super::{
    AddressKind, Family, FrontDoorKind, Index, LocalAddresses, Objects, Protocol, ServiceEntry,
};
use super::ip;

/// Goal: the index reads what kubectl really prints. Method: the recorded objects, if they are
/// there; every Service's addresses lead back to it.
#[test]
fn recorded_objects() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures/objects.json");
    let Ok(document) = fs::read(&path) else {
        // The recording is kept beside the repository, not in it.
        let skipped = format!("SKIPPED: no recording at {}\n", path.display());
        std::io::Write::write_all(&mut std::io::stderr(), skipped.as_bytes()).expect("stderr");
        return;
    };
    let index = Index::build(&Objects::from_list(&document).expect("kubectl printed it"));
    let local = LocalAddresses::new("node1", ["10.99.0.11", "fd99::11"].map(ip));

    let doors: Vec<_> = index
        .entries()
        .iter()
        .map(|entry| {
            for &address in &entry.service.cluster_ips {
                let door = index.front_door(entry.protocol, address, entry.port, &local);
                let door = door.expect("a cluster address is a front door");
                assert_eq!(door.kind, FrontDoorKind::ClusterIP);
                assert_eq!(
                    door.entry.map(ServiceEntry::service_port),
                    Some(entry.service_port())
                );
            }
            let virtual_ips = [
                (
                    FrontDoorKind::LoadBalancer,
                    &entry.service.load_balancer_vips,
                ),
                (FrontDoorKind::ExternalIP, &entry.service.external_ips),
            ]
            .map(|(kind, addresses)| {
                for &address in addresses {
                    let door = index.front_door(entry.protocol, address, entry.port, &local);
                    assert_eq!(door.map(|door| door.kind), Some(kind));
                }
                addresses.len()
            });
            let node_port = entry.node_port.map_or("-".to_owned(), |port| {
                let at = |address| index.front_door(entry.protocol, ip(address), port, &local);
                ["10.99.0.11", "10.99.0.12", "fd99::12", "10.99.0.100"]
                    .map(at)
                    .map(|door| door.map_or("-".to_owned(), |door| door.kind.to_string()))
                    .join(" ")
            });
            let usable = [Family::V4, Family::V6].map(|family| {
                let local = ["node1", "node2"]
                    .map(|node| entry.usable_local_endpoints(family, node).len().to_string());
                format!(
                    "{} ({})",
                    entry.usable_endpoints(family).len(),
                    local.join("+")
                )
            });
            format!(
                "{} {}: {node_port}; {virtual_ips:?}; {}",
                entry.service_port(),
                entry.protocol,
                usable.join(" ")
            )
        })
        .collect();
    assert_snapshot!(doors.join("\n"), @r"
    default/kubernetes:https TCP: -; [0, 0]; 1 (0+0) 0 (0+0)
    shop/cip-affinity:http TCP: -; [0, 0]; 3 (1+2) 3 (1+2)
    shop/cip-hints:http TCP: -; [0, 0]; 2 (1+1) 2 (1+1)
    shop/cip-itp-local:http TCP: -; [0, 0]; 3 (1+2) 3 (1+2)
    shop/dns:dns-tcp TCP: -; [0, 0]; 2 (1+1) 2 (1+1)
    shop/dns:dns UDP: -; [0, 0]; 2 (1+1) 2 (1+1)
    shop/ext-ip:http TCP: -; [0, 1]; 3 (1+2) 0 (0+0)
    shop/headless:http TCP: -; [0, 0]; 3 (1+2) 3 (1+2)
    shop/lb-cluster:http TCP: NodePort NodePort NodePort -; [2, 0]; 3 (1+2) 3 (1+2)
    shop/lb-local:http TCP: NodePort NodePort NodePort -; [2, 0]; 3 (1+2) 3 (1+2)
    shop/lb-ranges:http TCP: -; [2, 0]; 3 (1+2) 3 (1+2)
    shop/np-cluster:http TCP: NodePort NodePort NodePort -; [0, 0]; 3 (1+2) 3 (1+2)
    shop/np-empty:http TCP: NodePort NodePort NodePort -; [0, 0]; 0 (0+0) 0 (0+0)
    shop/np-local:http TCP: NodePort NodePort NodePort -; [0, 0]; 3 (1+2) 3 (1+2)
    shop/np-local-remote-only:http TCP: NodePort NodePort NodePort -; [0, 0]; 1 (0+1) 1 (0+1)
    shop/np-term:http TCP: NodePort NodePort NodePort -; [0, 0]; 1 (1+1) 1 (1+1)
    ");

    let backend = |address, port| index.backend(Protocol::Tcp, ip(address), port);
    assert_eq!(backend("10.244.2.30", 8080).node, Some("node2"));
    assert_eq!(
        backend("10.244.2.30", 8080)
            .pod
            .map(ToString::to_string)
            .as_deref(),
        Some("shop/np-term-2-30")
    );
    // Many Services share this endpoint, each naming a Pod of its own.
    assert_eq!(backend("10.244.1.10", 8080).pod, None);
    assert_eq!(backend("10.244.1.10", 8080).node, Some("node1"));
    assert_eq!(
        index.address_kind(ip("10.99.0.100"), &local),
        AddressKind::External
    );
    assert_eq!(
        index.address_kind(ip("fd99::100"), &local),
        AddressKind::External
    );
    assert_eq!(
        index.address_kind(ip("10.244.1.10"), &local),
        AddressKind::Pod
    );
}
