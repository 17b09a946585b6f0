//! What has a node's address, above its wire, and the client's.

use anyhow::Result;

use super::plug;
use crate::{
    lab::network::{Network, SPARE_WIRE, Uplink, VLAN, WIRE},
    netns::Namespace,
};

/// The number of the VLAN.
const VLAN_ID: u16 = 100;
/// How often a bond looks at its members' links, in milliseconds.
const BOND_MONITOR_MS: u16 = 100;

/// Raises the uplink of a node that is plugged into the switch.
pub(super) fn raise(
    namespace: &Namespace,
    node: &str,
    switch: &Namespace,
    network: Network,
) -> Result<()> {
    let uplink = network.uplink();
    match network.uplink {
        Uplink::Plain => Ok(()),
        Uplink::Bridge => namespace.ip(&format!(
            "link add {uplink} type bridge\n\
             link set {WIRE} master {uplink}\n\
             link set {uplink} up\n"
        )),
        Uplink::Vlan => raise_vlan(namespace),
        Uplink::Bond => {
            let port = format!("{node}-{SPARE_WIRE}");
            plug(switch, &port, namespace, SPARE_WIRE)?;
            // A bond takes only members that are down, and takes them up with itself; the first
            // becomes the active one.
            namespace.ip(&format!(
                "link add {uplink} type bond mode active-backup miimon {BOND_MONITOR_MS}\n\
                 link set {WIRE} down\n\
                 link set {WIRE} master {uplink}\n\
                 link set {SPARE_WIRE} down\n\
                 link set {SPARE_WIRE} master {uplink}\n\
                 link set {uplink} up\n"
            ))
        }
    }
}

/// The same for the client, and for an endpoint beside it.
pub(super) fn raise_outside(namespace: &Namespace, network: Network) -> Result<()> {
    match network.uplink {
        Uplink::Plain | Uplink::Bridge | Uplink::Bond => Ok(()),
        Uplink::Vlan => raise_vlan(namespace),
    }
}

fn raise_vlan(namespace: &Namespace) -> Result<()> {
    namespace.ip(&format!(
        "link add link {WIRE} name {VLAN} type vlan id {VLAN_ID}\nlink set {VLAN} up\n"
    ))
}
