//! How the nodes and pods of a lab are wired: what network plugins and installers make of a node.

use serde::Deserialize;

/// The wiring of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Network {
    /// Pods to their node.
    pub pods: Pods,
    /// Nodes to each other's pods.
    pub nodes: Nodes,
    /// A node to the world.
    pub uplink: Uplink,
    /// Whether what passes a node's bridges passes netfilter (`net.bridge.bridge-nf-call-iptables`).
    /// kubeadm asks for it: without, replies between pods of one bridge are never translated
    /// back. It does not go with a bridge as uplink beside [`Nodes::Routes`]: what NAT sends to
    /// another node would be bridged out by the port it came by, and no bridge does that.
    pub bridge_netfilter: bool,
    /// What the network plugin masquerades beside kube-proxy.
    pub masquerade: Masquerade,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            pods: Pods::default(),
            nodes: Nodes::default(),
            uplink: Uplink::default(),
            bridge_netfilter: true,
            masquerade: Masquerade::default(),
        }
    }
}

/// How a pod is joined to its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pods {
    /// By a veth with a host route, whose host's end has no IPv4 address: Calico, cloud plugins.
    #[default]
    Veths,
    /// The same, but the host's end has the pods' next hop as its address, to which a node
    /// masquerades what it sends to its own pods.
    AddressedVeths,
    /// By a port of the bridge `cni0`, which has the first address of the node's pod CIDR: the
    /// plugin `bridge`, flannel, kubenet.
    Bridge,
    /// By a pair of tun devices, whose packets have no link header: as WireGuard and IP in IP have
    /// none either.
    Tuns,
}

/// How packets to the pods of other nodes travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nodes {
    /// By routes through the other node: flannel's host-gw, Calico without encapsulation.
    #[default]
    Routes,
    /// In VXLAN through `flannel.1`, which has the network address of the node's pod CIDR.
    Vxlan,
}

/// Where a node has its own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uplink {
    /// On `eth0`.
    #[default]
    Plain,
    /// On the bridge `br0`, of which `eth0` is a port.
    Bridge,
    /// On the VLAN `eth0.100`, in which the client and all beside it are, too: the switch passes
    /// tagged frames on as they are. Needs the kernel's module `8021q`.
    Vlan,
    /// On `bond0`, of which `eth0` is the active and `eth1` the backup member, both plugged into
    /// the switch. Needs the kernel's module `bonding`.
    Bond,
}

/// Whose source addresses the network plugin of a node rewrites. Nothing of what kube-proxy marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masquerade {
    /// Nobody's: a plugin whose pods are routable everywhere.
    #[default]
    None,
    /// flannel's `--ip-masq`: pods that leave the pod network, and whoever else goes from this
    /// node to a pod of another.
    Flannel,
    /// Calico's `natOutgoing`: pods that leave the pod network, and, into a tunnel, the node
    /// itself.
    Calico,
}

/// The one interface of the client and of a pod, and the wire of a node.
pub(super) const WIRE: &str = "eth0";
/// The other wire of a node that has two.
pub(super) const SPARE_WIRE: &str = "eth1";
/// On a wire.
pub(super) const VLAN: &str = "eth0.100";
/// The bridge of the pods.
pub(super) const POD_BRIDGE: &str = "cni0";
/// The tunnel between the nodes.
pub(super) const TUNNEL: &str = "flannel.1";

impl Network {
    /// The interface of a node that has its address.
    pub(super) fn uplink(self) -> &'static str {
        match self.uplink {
            Uplink::Plain => WIRE,
            Uplink::Bridge => "br0",
            Uplink::Vlan => VLAN,
            Uplink::Bond => "bond0",
        }
    }

    /// The interface of the client, and of an endpoint beside it, that has its address.
    pub(super) fn outside(self) -> &'static str {
        match self.uplink {
            Uplink::Plain | Uplink::Bridge | Uplink::Bond => WIRE,
            Uplink::Vlan => VLAN,
        }
    }

    /// The first interface of a node that what comes from the world passes on its own, and the
    /// last that what leaves for it does. A bridge's port carries more than the bridge; but all
    /// that a wire carries below a VLAN or a bond passes these.
    pub(super) fn wire(self) -> &'static str {
        match self.uplink {
            Uplink::Plain | Uplink::Bridge => WIRE,
            Uplink::Vlan | Uplink::Bond => self.uplink(),
        }
    }

    /// The last interface that packets to another node's pods leave by, still unwrapped.
    pub(super) fn towards_other_nodes(self) -> &'static str {
        match self.nodes {
            Nodes::Routes => self.wire(),
            Nodes::Vxlan => TUNNEL,
        }
    }
}
