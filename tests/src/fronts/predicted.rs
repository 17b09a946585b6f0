//! Whether what `explain` says of a row's objects is the row.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    answers::seen_and_read,
    rows::{Cause, Row},
};
use crate::manifest::Carrier;

impl Row {
    /// Whether what is explained from the objects is the row; in short, what is.
    pub(super) fn explained(
        &self,
        explanation: &Value,
        wrong: &mut Vec<String>,
    ) -> BTreeSet<String> {
        if !self.is_on_aws() {
            return BTreeSet::new();
        }
        let ways = self.ways(explanation);
        let lost_by = match self.losses.first() {
            None => None,
            Some(Cause::UpstreamLoadBalancer) => Some("load-balancer"),
            Some(Cause::ExternalTrafficPolicyCluster) => Some("kube-proxy"),
        };
        let carrier: Vec<Carrier> = self.front.carrier().into_iter().collect();
        let says_so = |way: &&&Value| {
            let hops = |end: &str| way["extra_hops"][end].as_u64();
            way["seen"] == json!(self.seen)
                && way["lost_by"] == json!(lost_by)
                && way["recoverable"] == json!(carrier)
                && way["outcome"] == "answered"
                && hops("least") <= Some(self.hops.into())
                && hops("most") >= Some(self.hops.into())
        };
        let agreeing: Vec<_> = ways.iter().filter(says_so).collect();
        // An Ingress' load balancer enters by any node, and its ways do not say which.
        let enough = if self.front.is_alb() {
            1
        } else {
            ways.len().max(1)
        };
        if agreeing.len() < enough {
            let said: Vec<String> = ways.iter().map(|way| in_short(way)).collect();
            wrong.push(format!("explained otherwise: {said:?}"));
        }
        let seen = json!(self.seen);
        let seen = seen.as_str().filter(|_| !agreeing.is_empty());
        seen.map(|seen| seen_and_read(seen, self.front.carrier()))
            .into_iter()
            .collect()
    }

    /// The ways that are the row's.
    fn ways<'a>(&self, explanation: &'a Value) -> Vec<&'a Value> {
        let list = |value: &'a Value| value.as_array().map_or(&[][..], Vec::as_slice);
        let services = list(&explanation["services"]).iter();
        let own = services.filter(|service| service["service"]["name"] == *self.name());
        let door = if self.front.is_alb() {
            "Proxy"
        } else {
            "LoadBalancer"
        };
        own.flat_map(|service| list(&service["ways"]))
            .filter(|way| {
                let nodes = list(&way["nodes"]);
                way["door"] == door
                    && way["client"] == "external"
                    && (nodes.is_empty() || nodes.contains(&json!(self.entry().name())))
            })
            .collect()
    }
}

fn in_short(way: &Value) -> String {
    let fields = [
        "nodes",
        "seen",
        "lost_by",
        "recoverable",
        "extra_hops",
        "outcome",
    ];
    let said: Vec<String> = fields.iter().map(|field| way[field].to_string()).collect();
    said.join(" ")
}
