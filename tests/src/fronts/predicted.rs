//! Whether what `explain` says of a row's objects is the row.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    answers::seen_and_read,
    rows::{Backend, Cause, Policy, Row, Target},
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
        let is_told = |way: &&Value| says_so(&way) || self.is_by_another_node(way);
        if agreeing.is_empty() || !ways.iter().all(is_told) {
            let said: Vec<String> = ways.iter().map(|way| in_short(way)).collect();
            wrong.push(format!("explained otherwise: {said:?}"));
        }
        let seen = json!(self.seen);
        let seen = seen.as_str().filter(|_| !agreeing.is_empty());
        seen.map(|seen| seen_and_read(seen, self.front.carrier()))
            .into_iter()
            .collect()
    }

    /// Whether that is what happens by another node than the row's: an Ingress' load balancer enters
    /// by any, and its ways do not say which.
    fn is_by_another_node(&self, way: &Value) -> bool {
        if !self.front.is_alb() || self.target != Target::Instance {
            return false;
        }
        match self.policy {
            // By one without an endpoint.
            Policy::Local => way["outcome"] == "dropped" && way["seen"] == Value::Null,
            // By the endpoint's own, which spares what is in its own network; or by one that does not.
            Policy::Cluster => {
                let is_own = self.entry() == self.endpoint;
                let (seen, hops) = if is_own {
                    ("entry-node", 1)
                } else {
                    ("load-balancer", 0)
                };
                self.backend == Backend::Host
                    && way["seen"] == seen
                    && way["lost_by"] == "load-balancer"
                    && way["extra_hops"] == json!({"least": hops, "most": hops})
                    && way["outcome"] == "answered"
            }
        }
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
