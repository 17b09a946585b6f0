//! What people get to see, record by record.
//!
//! Every kind of record is shown as it is printed at 100 columns, so that a change of wording is
//! seen by whoever makes it.

mod explanation;
mod records;

use self::records::{
    backend, because, behind_a_load_balancer, kinds, lost, nobody, preserved, second_node,
};
use super::paint::Page;
use super::summary::Summary;
use super::table;
use super::wide::Rows;
use crate::kernel::programs::Counters;
use crate::live::{Lost, Missed, Sampled};
use crate::payload::Carrier;
use crate::record::{HopCheck, Record};
use crate::verdict::{Outcome, OutcomeCauseCode};

const PAGE: Page = Page::plain(100);

#[test]
fn every_kind_of_record_is_readable_at_100_columns() {
    let shown: Vec<_> = kinds()
        .iter()
        .map(|(kind, record)| format!("# {kind}\n{}", table::render(record, PAGE)))
        .collect();
    let shown = shown.join("\n\n");
    insta::assert_snapshot!(shown, @r"
    # lost
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/web:http → 10.244.2.5:8080 (web-7f9c, node2)
        LOST at node1, eth0: kube-proxy masquerade (externalTrafficPolicy: Cluster)
          · pod saw 172.31.0.11 · 1 extra hop (node1 → node2)

    # preserved
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/api:http → 10.244.1.7:8080 (api-5d4b, node1)
        PRESERVED · pod saw 203.0.113.50 · no extra hop

    # second node
    172.31.0.11:50513 (node) → Pod 10.244.2.5:8080 (web-7f9c, node2) of shop/web:http
        UNKNOWN: rewritten before it reached node2 · pod saw 172.31.0.11

    # refused by this node
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/web:http
        REFUSED at node1, eth0: shop/web has no usable endpoint: kube-proxy rejects the connection

    # refused by the backend
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/api:http → 10.244.1.7:8080 (api-5d4b, node1)
        PRESERVED · pod saw 203.0.113.50 · no extra hop · REFUSED: 10.244.1.7:8080 refused: nothing
          listens there, or its own host rejects

    # dropped
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/far:http
        DROPPED at node1, eth0: externalTrafficPolicy is Local and node1 has no usable endpoint of
          shop/far: kube-proxy drops the connection

    # unanswered
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/web:http → 10.244.2.5:8080 (web-7f9c, node2)
        LOST at node1, eth0: kube-proxy masquerade (externalTrafficPolicy: Cluster)
          · pod is shown 172.31.0.11 · 1 extra hop (node1 → node2) · UNANSWERED

    # nothing known
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/web:http
        NO ANSWER SEEN at node1, eth0

    # without cluster state
    203.0.113.50:49508 → 172.31.0.11:30080 → 10.244.2.5:8080
        LOST at node1: rewritten, by whom is not known · backend saw 172.31.0.11

    # a pod reaches itself over UDP
    10.244.2.5:40000 (pod) → NodePort 172.31.0.11:30080/UDP → shop/web:http
      → 10.244.2.5:8080 (web-7f9c, node2)
        LOST at node1, eth0: kube-proxy masquerade (hairpin: the pod reached itself)
          · pod saw 172.31.0.11 · no extra hop

    # inferred, and not as predicted
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/web:http → 10.244.2.5:8080 (web-7f9c, node2)
        LOST at node1, eth0: kube-proxy masquerade (client outside the cluster CIDR, inferred)
          · pod saw 172.31.0.11 · 1 extra hop (node1 → node2)
          · UNEXPECTED (predicted: preserved, answered)

    # from conntrack
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/api:http → 10.244.1.7:8080 (api-5d4b, node1)
        PRESERVED · pod saw 203.0.113.50 · no extra hop · existed before

    # IPv6
    [2001:db8:113:4567:89ab:cdef:1234:5678]:49508 → LoadBalancer [2001:db8:f00d::80]:443 → shop/web:http
      → [fd00:10:244:2::5]:8080 (web-gf6n6lt95-7vm2d, ip-10-0-12-34.eu-central-1.compute.internal)
        LOST at node1, eth0: kube-proxy masquerade (externalTrafficPolicy: Cluster)
          · pod saw fd00:172:31::11 · 1 extra hop (node1 → ip-10-0-12-34.eu-central-1.compute.internal)

    # behind a load balancer, and masqueraded
    203.0.113.50 (proxy-v2) → 192.0.2.7:40000 (load balancer) → NodePort 172.31.0.11:30080
      → shop/web:http → 10.244.2.5:8080 (web-7f9c, node2)
        LOST before node1: load balancer 192.0.2.7; then again at node1, eth0: kube-proxy masquerade
          (externalTrafficPolicy: Cluster) · client recovered from proxy-v2: 203.0.113.50
          · pod saw 172.31.0.11 · 1 extra hop (node1 → node2) · MISMATCH: proxy-header-not-understood

    # a load balancer whose address stays, and TLS
    192.0.2.7:40000 (load balancer) → NodePort 172.31.0.11:30080 → shop/web:http
      → 10.244.2.5:8080 (web-7f9c, node2)
        LOST before node1: load balancer 192.0.2.7 · client not recovered (tls) · pod saw 192.0.2.7
          · 1 extra hop (node1 → node2) · MISMATCH: local-behind-replacing-load-balancer

    # a proxy of the cluster, on which node is not known
    203.0.113.50 (x-forwarded-for) → 10.244.3.9:40000 (pod) → NodePort 172.31.0.11:30080 → shop/web:http
      → 10.244.2.5:8080 (web-7f9c, node2)
        LOST at a proxy 10.244.3.9 · client recovered from x-forwarded-for: 203.0.113.50
          · pod saw 172.31.0.11 · 1 extra hop (node1 → node2)

    # by the gateway, to a sidecar
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/api:http → 10.244.1.7:8080 (api-5d4b, node1)
        UNKNOWN: 203.0.113.50 is the gateway of node1, which may have put it there
          · pod saw 203.0.113.50 · a sidecar in the pod hides what the application sees · no extra hop
    ");
    let widest = shown.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?} columns");
}

#[test]
fn nothing_is_cut_however_narrow_the_page() {
    let words =
        |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    for (kind, record) in kinds() {
        let wide = table::render(&record, Page::plain(1_000));
        assert_eq!(wide.lines().count(), 2, "{kind}: {wide}");
        for width in [40, 60, 80, 100] {
            let narrow = table::render(&record, Page::plain(width));
            assert_eq!(words(&narrow), words(&wide), "{kind} at {width}");
        }
    }
}

/// What only the records of two nodes tell.
#[test]
fn a_joined_record_says_what_the_hop_cost_and_where_ttls_disagree() {
    let mut joined = Record {
        extra_hop_ns: Some(112_340),
        hop_check: Some(HopCheck {
            forwards: 3,
            expected: 2,
        }),
        ..lost()
    };
    let mut there = joined.path[0].clone();
    there.node = "node2".into();
    there.out = Some("cali1".into());
    joined.path.push(there);
    insta::assert_snapshot!(table::render(&joined, PAGE), @r"
    203.0.113.50:49508 → NodePort 172.31.0.11:30080 → shop/web:http → 10.244.2.5:8080 (web-7f9c, node2)
        LOST at node1, eth0: kube-proxy masquerade (externalTrafficPolicy: Cluster)
          · pod saw 172.31.0.11 · 1 extra hop (node1 → node2, 112.3 µs)
          · ANOTHER WAY (by TTL 3 forwards, on the path 2)
        node1: eth0 → eth0 · node2: eth0 → cali1
    ");
}

#[test]
fn wide_rows_line_up() {
    let mut rows = Rows::new(PAGE);
    let shown: Vec<_> = [
        lost(),
        preserved(),
        second_node(),
        nobody(
            Outcome::Refused,
            Some(because(OutcomeCauseCode::NoEndpoints, "…")),
        ),
    ]
    .iter()
    .map(|record| rows.render(record))
    .collect();
    let shown = shown.join("\n");
    insta::assert_snapshot!(shown, @r"
    TIME                         PROTO  CLIENT                 CLIENT-KIND  DOOR          FRONT-DOOR             SERVICE               BACKEND                POD                   POD-NODE  SOURCE-SEEN            SOURCE-IP  CAUSE                            BY          OUTCOME     OUTCOME-CAUSE       HOPS  NODE      IN        OUT       FORWARD-US  ROUND-TRIP-US  EXTRA-HOP-US  RECOVERED        FINDINGS
    2026-11-23T12:00:42.123456Z  TCP    203.0.113.50:49508     external     NodePort      172.31.0.11:30080      shop/web:http         10.244.2.5:8080        web-7f9c              node2     172.31.0.11:50513      lost       external-traffic-policy-cluster  kube-proxy  answered    -                   1     node1     eth0      eth0      41.2        810.0          -             -                -
    2026-11-23T12:00:42.123456Z  TCP    203.0.113.50:49508     external     NodePort      172.31.0.11:30080      shop/api:http         10.244.1.7:8080        api-5d4b              node1     203.0.113.50:49508     preserved  -                                -           answered    -                   0     node1     eth0      eth0      41.2        810.0          -             -                -
    2026-11-23T12:00:42.123456Z  TCP    172.31.0.11:50513      node         Pod           10.244.2.5:8080        shop/web:http         10.244.2.5:8080        web-7f9c              node2     172.31.0.11:50513      unknown    masqueraded-before-this-node     -           answered    -                   -     node2     eth0      eth0      41.2        810.0          -             -                -
    2026-11-23T12:00:42.123456Z  TCP    203.0.113.50:49508     external     NodePort      172.31.0.11:30080      shop/web:http         -                      -                     -         -                      unknown    -                                -           refused     no-endpoints        -     node1     eth0      -         -           -              -             -                -
    ");
    let lines: Vec<_> = shown.lines().collect();
    let cells: Vec<_> = lines
        .iter()
        .map(|line| line.split_whitespace().count())
        .collect();
    assert_eq!(cells, [25; 5], "every cell is one word");
}

#[test]
fn a_row_is_made_of_words_whatever_the_names_are() {
    let mut record = lost();
    record.backend = Some(backend(
        "10.244.2.5:8080",
        Some("a pod\n\u{1b}[31m"),
        Some("node2"),
    ));
    let row = Rows::new(PAGE).render(&record);
    assert_eq!(row.lines().count(), 2, "{row}");
    let cells = row.lines().last().expect("a row").split_whitespace();
    assert_eq!(cells.count(), 25, "{row}");
    assert!(!row.contains('\u{1b}'), "{row:?}");
    assert!(!table::render(&record, PAGE).contains('\u{1b}'));
}

#[test]
fn the_summary_is_by_service_and_cause() {
    let mut summary = Summary::default();
    let mut none = lost();
    none.service = None;
    for record in [
        behind_a_load_balancer(),
        lost(),
        lost(),
        preserved(),
        second_node(),
        none,
        nobody(
            Outcome::Refused,
            Some(because(OutcomeCauseCode::NoEndpoints, "…")),
        ),
    ] {
        summary.add(&record);
    }
    summary.pass_over();
    let missed = Missed {
        counters: Counters::default(),
        lost: Lost {
            undecodable: 2,
            ..Lost::default()
        },
        sampled: Sampled {
            most: 5,
            for_ns: 7_340_000_000,
            ..Sampled::default()
        },
    };
    insta::assert_snapshot!(summary.render(Some(missed), PAGE), @r"
    SERVICE       SOURCE IP  CAUSE                            OUTCOME                CONNECTIONS
    (no Service)  lost       external-traffic-policy-cluster  answered                         1
    shop/api      preserved  -                                answered                         1
    shop/web      lost       external-traffic-policy-cluster  answered                         2
                  lost       upstream-load-balancer           answered                         1
                  unknown    -                                refused: no-endpoints            1
                  unknown    masqueraded-before-this-node     answered                         1
    ! shop/web, 1 connection: it does not fit. Mend: mend it.
    7 connections: source lost in 4, preserved in 1, unknown in 2; 1 more not asked for
    2 observations lost, undecodable: 2; for 7.4 s only one connection in 32 was followed, or more
    ");
    assert_eq!(
        Summary::default().render(None, PAGE),
        "0 connections",
        "a replay misses nothing"
    );
}

#[test]
fn whom_a_proxy_speaks_for_stands_in_front_of_it() {
    let mut record = lost();
    record.client.recovered = Some("198.51.100.77".parse().expect("an address"));
    record.client.recovered_from = Some(Carrier::ProxyV2);
    let shown = table::render(&record, Page::plain(200));
    let start = "198.51.100.77 (proxy-v2) → 203.0.113.50:49508 → NodePort 172.31.0.11:30080";
    assert!(shown.starts_with(start), "{shown}");
}
