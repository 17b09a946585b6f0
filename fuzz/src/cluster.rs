//! The cluster's objects, as kubectl prints them.

use std::net::IpAddr;

use observer::cluster::{
    Counts, Family, Index, KubeProxy, LocalAddresses, Objects, Protocol, ServiceEntry,
};

/// Reads a `List`, builds the index of it, and asks that for everything in it.
pub fn run(bytes: &[u8]) {
    read(bytes);
}

/// The index of a `List`, if the bytes are one.
pub fn read(bytes: &[u8]) -> Option<Index> {
    let objects = Objects::from_list(bytes).ok()?;
    let kube_proxy = KubeProxy::of_cluster(&objects.config_maps).ok().flatten();
    let index = Index::build(&objects);
    // What a recording keeps of the objects gives the same answers.
    let kept = objects.to_list().to_string();
    let kept = Objects::from_list(kept.as_bytes()).expect("what was read once is read again");
    let again = Index::build(&kept);
    let counts = Counts {
        others: 0,
        ..index.counts()
    };
    assert_eq!(again.counts(), counts);
    let ports = |index: &Index| -> Vec<_> {
        let port = |entry: &ServiceEntry| (entry.service_port(), entry.protocol, entry.port);
        index.entries().iter().map(port).collect()
    };
    assert_eq!(ports(&again), ports(&index));

    let local = LocalAddresses::new("node1", []);
    for entry in index.entries() {
        let reference = &entry.service.reference;
        let same = index.service(&reference.namespace, &reference.name);
        assert!(
            same.iter().any(|same| std::ptr::eq(same, entry)),
            "{reference} is not found"
        );
        for family in [Family::V4, Family::V6] {
            for endpoint in index.endpoints_of(reference, entry.protocol, entry.port, family) {
                about(&index, entry.protocol, endpoint.address, &local);
            }
        }
    }
    for node in index.nodes() {
        for address in &node.addresses {
            assert!(index.has_node_address(*address), "{address}");
            about(&index, Protocol::Tcp, *address, &local);
            if let Some(kube_proxy) = &kube_proxy {
                let _ = kube_proxy.is_outside(*address, Some(node));
            }
        }
    }
    Some(index)
}

fn about(index: &Index, protocol: Protocol, address: IpAddr, local: &LocalAddresses) {
    for port in [0, 80, 8080, 30080] {
        let _ = index.front_door(protocol, address, port, local);
        let _ = index.backend(protocol, address, port);
    }
    let _ = index.address_kind(address, local);
    let _ = index.load_balancer_proxy(address);
    let _ = index.is_in_pod_cidr(address);
}
