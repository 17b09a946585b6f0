//! What holds of every way, whatever is on it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::chain::{World, front, ingress_nginx, nodes, service};
use crate::cluster::front::{Carrier, Delivers, Keeps, LoadBalancer};
use crate::cluster::plane::Dataplane;
use crate::verdict::chain::{Explained, Seen, StageKind, Way, Word};
use crate::verdict::{ClientKind, SourceIp};

const CARRIERS: [Carrier; 3] = [Carrier::XForwardedFor, Carrier::ProxyV1, Carrier::ProxyV2];
const SETTINGS: [&str; 3] = [
    "use-forwarded-headers",
    "compute-full-forwarded-for",
    "use-proxy-protocol",
];

fn fronts() -> impl Strategy<Value = LoadBalancer> {
    let delivers = select(vec![
        Delivers::NodePort,
        Delivers::VirtualIp,
        Delivers::Pod,
        Delivers::Relay,
        Delivers::Nothing,
        Delivers::Unknown,
    ]);
    let keeps = select(vec![Keeps::Client, Keeps::Own, Keeps::Unknown]);
    let adds = subsequence(CARRIERS.to_vec(), 0..=3);
    let leaves_out = any::<Option<bool>>();
    let only = proptest::option::of(subsequence(vec!["node1", "node2", "node9"], 1..=3));
    (delivers, keeps, adds, leaves_out, only).prop_map(
        |(delivers, keeps, adds, leaves_out, only)| LoadBalancer {
            adds,
            leaves_out_unhealthy_nodes: leaves_out,
            only_nodes: only.map(|names| names.into_iter().map(str::to_owned).collect()),
            ..front(delivers, keeps)
        },
    )
}

/// Who translates, and what else differs.
fn dataplanes() -> impl Strategy<Value = Dataplane> {
    select(vec![
        Dataplane::KubeProxy,
        Dataplane::CiliumSnat,
        Dataplane::CiliumHybrid,
        Dataplane::CiliumDsr,
        Dataplane::Cilium,
        Dataplane::OvnKubernetes,
    ])
}

fn ingress(settings: &[&str]) -> Vec<Value> {
    let data: serde_json::Map<String, Value> = settings
        .iter()
        .map(|name| ((*name).to_owned(), json!("true")))
        .collect();
    ingress_nginx(&data.into())
}

/// A way is what its stages make of it.
fn is_the_sum_of_its_stages(way: &Way<'_>) {
    let [begin, .., end] = &way.stages[..] else {
        panic!("more than the client: {way:?}");
    };
    assert_eq!(begin.kind, StageKind::Client);
    assert_eq!(begin.source, Seen::Client);
    let Some(seen) = way.seen else {
        assert_ne!(end.kind, StageKind::Pod);
        assert_eq!(way.source_ip, SourceIp::Unknown);
        assert_eq!((way.lost_by, &way.extra_hops), (None, &None));
        assert_eq!(way.recoverable, []);
        assert!(!way.is_open());
        return;
    };
    assert_eq!(end.kind, StageKind::Pod);
    assert_eq!(end.source, seen);
    assert_eq!(end.recoverable, way.recoverable);
    let expected = match seen {
        Seen::Client => SourceIp::Preserved,
        Seen::Unknown => SourceIp::Unknown,
        _ => SourceIp::Lost,
    };
    assert_eq!(way.source_ip, expected);
    let changed_by: Vec<_> = way.stages.iter().filter_map(|it| it.changed_by).collect();
    if way.source_ip == SourceIp::Preserved {
        assert_eq!(changed_by, []);
    }
    if way.source_ip == SourceIp::Lost {
        assert_eq!(way.lost_by, changed_by.first().copied());
    }
    // A source stays what it is until somebody changes it, or it is not known any more.
    for pair in way.stages.windows(2) {
        let is_same = pair[0].source == pair[1].source;
        assert!(is_same || pair[1].changed_by.is_some() || pair[1].source == Seen::Unknown);
    }
    // Ways through a proxy that differ in the node only are one: its range is within the sum.
    let hops: Option<Vec<_>> = way.stages.iter().map(|stage| stage.hops.clone()).collect();
    if let (Some(hops), Some(all)) = (&hops, &way.extra_hops) {
        let least: u8 = hops.iter().map(|it| *it.start()).sum();
        let most: u8 = hops.iter().map(|it| *it.end()).sum();
        assert!(
            least <= *all.start() && *all.end() <= most,
            "{hops:?}: {all:?}"
        );
        assert!(all.start() <= all.end());
    }
    assert_eq!(hops.is_none(), way.extra_hops.is_none());
}

/// Nothing is found in what nobody added.
fn is_told_by_somebody(way: &Way<'_>, front: &LoadBalancer) {
    let mut added: BTreeSet<Carrier> = BTreeSet::new();
    for stage in &way.stages {
        match stage.kind {
            StageKind::LoadBalancer | StageKind::Relay => added.extend(&front.adds),
            StageKind::Proxy => added = [Carrier::XForwardedFor].into(),
            _ => {}
        }
        let told: BTreeSet<Carrier> = stage.recoverable.iter().copied().collect();
        assert!(told.is_subset(&added), "{stage:?}");
        assert_eq!(told.len(), stage.recoverable.len(), "each once");
    }
}

/// The verdict is of the ways.
fn is_the_verdict_of_its_ways(explained: &Explained<'_>) {
    let verdict = &explained.verdict;
    let meant = explained.ways.iter().filter(|way| {
        way.client == verdict.client && verdict.doors.contains(&way.door) && way.is_open()
    });
    let meant: Vec<_> = meant.collect();
    let fates: BTreeSet<SourceIp> = meant.iter().map(|way| way.source_ip).collect();
    match verdict.word {
        Word::Unreachable => assert!(fates.is_empty()),
        Word::Preserved => assert_eq!(fates, [SourceIp::Preserved].into()),
        Word::Lost => assert_eq!(fates, [SourceIp::Lost].into()),
        Word::Unknown => assert!(fates.contains(&SourceIp::Unknown)),
        Word::Depends => assert!(fates.len() > 1 && fates.contains(&SourceIp::Lost)),
        Word::Broken => assert!(!fates.is_empty()),
        Word::NoAddress => assert_eq!(explained.ways.len(), 0),
    }
    let losers: BTreeSet<_> = meant.iter().filter_map(|way| way.lost_by).collect();
    assert!(verdict.lost_by.is_subset(&losers));
    for carrier in &verdict.recoverable {
        let lost = meant.iter().filter(|way| way.source_ip == SourceIp::Lost);
        for way in lost {
            assert!(way.recoverable.contains(carrier));
        }
    }
}

proptest! {
    #[test]
    fn every_way_adds_up(
        front in fronts(),
        dataplane in dataplanes(),
        policy in select(vec!["Cluster", "Local"]),
        protocol in select(vec!["TCP", "UDP"]),
        web in subsequence(vec![1_u8, 2, 3], 0..=3),
        proxy in subsequence(vec![1_u8, 2, 3], 0..=3),
        settings in subsequence(SETTINGS.to_vec(), 0..=3),
    ) {
        let items = [
            nodes(),
            service("shop/web", policy, protocol, &web),
            service("ingress/ingress-nginx", policy, "TCP", &proxy),
            ingress(&settings),
        ].concat();
        let world = World::of(&items)
            .behind("shop/web", front.clone())
            .behind("ingress/ingress-nginx", front.clone())
            .with(dataplane);
        for name in ["shop/web", "ingress/ingress-nginx"] {
            let explained = world.explained(name);
            for way in &explained.ways {
                is_the_sum_of_its_stages(way);
                is_told_by_somebody(way, &front);
                prop_assert!(way.client != ClientKind::Unknown);
            }
            is_the_verdict_of_its_ways(&explained);
        }
    }
}
