//! The words a verdict is made of, exactly as a record spells them.

use serde::{Deserialize, Serialize};

/// Who opened the connection, as it arrived at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// From outside the cluster.
    External,
    /// A pod.
    Pod,
    /// A process in a node's own network namespace.
    Node,
    /// A load balancer or proxy in front of the cluster.
    LoadBalancer,
    /// Cannot be told; also a word of a later version.
    #[serde(other)]
    Unknown,
}

/// What became of the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceIp {
    /// The backend sees the address that arrived.
    Preserved,
    /// The backend sees another.
    Lost,
    /// Cannot be told from here; also a word of a later version.
    #[serde(other)]
    Unknown,
}

/// Whose rule rewrote the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewriteOwner {
    /// kube-proxy's masquerade.
    KubeProxy,
    /// A rule of the network plugin.
    Cni,
    /// A load balancer.
    LoadBalancer,
    /// A proxy that opens connections of its own.
    Proxy,
    /// Cannot be told; also a word of a later version.
    #[serde(other)]
    Unknown,
}

/// Why the source address is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseCode {
    /// kube-proxy masquerades whatever enters from outside under `externalTrafficPolicy: Cluster`.
    ExternalTrafficPolicyCluster,
    /// kube-proxy runs with `masqueradeAll`.
    MasqueradeAll,
    /// A client outside the cluster CIDR reached a cluster IP.
    OutsideClusterCidr,
    /// A pod reached itself through a Service.
    Hairpin,
    /// The client is a process of this node.
    NodeLocalClient,
    /// A rule of the network plugin.
    CniMasquerade,
    /// The address that arrived is another node's: it was rewritten there.
    MasqueradedBeforeThisNode,
    /// A load balancer in front of the node.
    UpstreamLoadBalancer,
    /// A proxy that opens connections of its own.
    L7Proxy,
    /// The address that arrived is the network's gateway: of docker, kind or a router, whose
    /// masquerade gives it to whoever comes from outside.
    GatewayMasquerade,
    /// Cannot be told; also a word of a later version.
    #[serde(other)]
    Unknown,
}

/// What a cause rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The rewrite was seen, and the objects have one rule that does it.
    Observed,
    /// What was configured says so: kube-proxy, the status of a Service, `--load-balancer`.
    Config,
    /// It fits, and nothing else known does.
    Inferred,
}

/// Why, with a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Which.
    pub code: CauseCode,
    /// What it rests on.
    pub basis: Basis,
    /// For people.
    pub explanation: String,
}

/// Who stands behind this node's last word, where it cannot look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hider {
    /// A proxy within the backend's own pod (Istio, Linkerd): the application sees its address.
    Sidecar,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// What becomes of the source beyond what any node sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beyond {
    /// By whom.
    pub by: Hider,
    /// For people.
    pub explanation: String,
}

/// What does not fit together on a connection's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingCode {
    /// A PROXY header is sent to a backend that does not speak it.
    ProxyHeaderNotUnderstood,
    /// The backend waits for a PROXY header, and what is sent is none.
    ProxyHeaderMissing,
    /// `externalTrafficPolicy: Local` keeps the address of a load balancer that replaces the
    /// client's anyway.
    LocalBehindReplacingLoadBalancer,
    /// A proxy before this one wrote whom it spoke for, and the next replaced that.
    ForwardedForOverwritten,
    /// One hop is listed twice in succession.
    ForwardedForAppendedTwice,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// A finding, with a sentence, and the change that mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub code: FindingCode,
    /// For people.
    pub explanation: String,
    /// What to change.
    pub change: String,
}

/// What became of the opening packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The first reply left towards the client.
    Answered,
    /// A RST or ICMP error answered.
    Refused,
    /// netfilter let it die.
    Dropped,
    /// Delivered or forwarded, and no reply within the answer time-out.
    Unanswered,
    /// Cannot be told; also a word of a later version.
    #[serde(other)]
    Unknown,
}

/// Why the outcome is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeCauseCode {
    /// No usable endpoint on this node, under a Local policy.
    NoLocalEndpoints,
    /// No usable endpoint anywhere.
    NoEndpoints,
    /// The client is in none of `loadBalancerSourceRanges`.
    SourceRanges,
    /// kube-proxy serves no node ports at this address (`nodePortAddresses`).
    NotANodePortAddress,
    /// A reply came back, but never left towards the client as one of its connection.
    AsymmetricReturn,
    /// The backend's own host refused.
    BackendRefused,
    /// A socket of this node got the connection and did not take it.
    ListenQueue,
    /// Conntrack had no room for another entry.
    ConntrackFull,
    /// Nothing of kube-proxy's: another rule of this node, or its routing.
    NetworkPolicyOrFirewall,
    /// Cannot be told; also a word of a later version.
    #[serde(other)]
    Unknown,
}

/// Why, with a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCause {
    /// Which.
    pub code: OutcomeCauseCode,
    /// For people.
    pub explanation: String,
}

/// What should have become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Of the client's address; unknown if the objects do not tell.
    pub source_ip: SourceIp,
    /// Of the opening packet.
    pub outcome: Outcome,
}

impl Expected {
    /// Whether what happened is no finding.
    pub fn is_met_by(
        self,
        source_ip: SourceIp,
        outcome: Outcome,
        why: Option<OutcomeCauseCode>,
    ) -> bool {
        let Self {
            source_ip: expected,
            outcome: expected_outcome,
        } = self;
        // A REJECT whose ICMP error is rate limited (`net.ipv4.icmp_ratelimit`) is a drop.
        let rejected_in_silence = expected_outcome == Outcome::Refused
            && outcome == Outcome::Dropped
            && why == Some(OutcomeCauseCode::NoEndpoints);
        (expected_outcome == Outcome::Unknown || outcome == expected_outcome || rejected_in_silence)
            && (expected == SourceIp::Unknown || expected == source_ip)
    }
}
