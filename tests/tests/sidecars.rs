//! What a sidecar hides within a pod is named, where it hides something.
//!
//! Goal: where the application's own socket sees another than the pod gets, the record says so, and
//! whom it sees; elsewhere it says nothing. What the pod gets is told as without a sidecar. Method:
//! the rules of Istio and Linkerd in pods' own namespaces, with `HAProxy` as the sidecar; compare what
//! the meshes' documents say, the application's socket, the sidecar's log and `trace`.

use rstest::rstest;
use serde_json::Value;
use tests::{
    kubeproxy::{Backend, Family, Mode},
    oracle::end,
    privilege,
    sidecar::{Sidecar, Stage},
};

const CONNECTIONS: usize = 20;

#[rstest]
fn what_a_sidecar_hides_is_named(
    #[values(Mode::Iptables(Backend::Nft), Mode::Nftables)] mode: Mode,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    if !privilege::granted("what_a_sidecar_hides_is_named") {
        return;
    }
    let stage = Stage::raise(mode, family).expect("raised");
    let (came, records) = stage.observe(CONNECTIONS).expect("observed");
    for sidecar in Sidecar::ALL {
        let of_it = came.iter().filter(|came| came.by == sidecar).count();
        assert_eq!(of_it, CONNECTIONS, "{sidecar:?}");
    }
    for came in &came {
        assert_eq!(came.peer.ip(), came.by.shows(came), "{came:?}");
        let is_it = |record: &&Value| {
            end(record, "/source_seen") == Some(came.pod_saw)
                && end(record, "/backend").is_some_and(|backend| backend.ip() == came.pod)
        };
        let of_it: Vec<_> = records.iter().filter(is_it).collect();
        let [record] = of_it[..] else {
            panic!("{came:?} is told {} times", of_it.len())
        };
        assert_eq!(record["source_ip"], "preserved", "{record}");
        assert_eq!(end(record, "/client"), Some(came.pod_saw), "{record}");
        let beyond = &record["beyond"];
        if came.peer == came.pod_saw {
            assert!(beyond.is_null(), "{came:?}: {record}");
            continue;
        }
        assert_eq!(beyond["by"], "sidecar", "{came:?}: {record}");
        let says = beyond["explanation"].as_str().expect("a sentence");
        let shown = match came.by {
            Sidecar::Linkerd => "the pod's own address".to_owned(),
            _ => came.peer.ip().to_string(),
        };
        assert!(says.contains(&shown), "{came:?}: {says}");
    }
}
