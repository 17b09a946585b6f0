//! What the nftables rules of this network namespace say of connection tracking and of
//! kube-proxy, read over netlink (`net/netfilter/nf_tables_api.c`); `iptables-nft` keeps its rules
//! there too. Needs `CAP_NET_ADMIN` and Linux 3.13 (flowtables: 4.16).
//!
//! No address is kept: chains of kube-proxy's nftables mode are named after endpoints.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use serde::Serialize;

use super::netfilter::{self, NetfilterError};

/// As `iptables-nft` and kube-proxy's nftables mode name things.
const KUBE_PROXY: &str = "kube-proxy";
const KUBE_SERVICES: &str = "KUBE-SERVICES";
// include/uapi/linux/netfilter/nf_tables.h
const NFTA_TARGET_NAME: u16 = 1;
const NFTA_TARGET_INFO: u16 = 3;
const NFTA_FLOWTABLE_TABLE: u16 = 1;
const NFTA_FLOWTABLE_NAME: u16 = 2;
const NFTA_FLOWTABLE_FLAGS: u16 = 7;
const NFT_FLOWTABLE_HW_OFFLOAD: u32 = 1;
/// `XT_CT_NOTRACK` (`include/uapi/linux/netfilter/xt_CT.h`).
const XT_CT_NOTRACK: u16 = 1;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// A function that every kernel with nftables has (`net/netfilter/nf_tables_core.c`).
pub const FUNCTION: &str = "nft_do_chain";

/// A family of addresses, as kube-proxy programs them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

/// What matters of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ruleset {
    /// In which families there is a table `kube-proxy`: its nftables mode.
    pub kube_proxy_tables: BTreeSet<RuleFamily>,
    /// In which families the table `nat` has a chain `KUBE-SERVICES`: its iptables or IPVS mode.
    pub kube_services_chains: BTreeSet<RuleFamily>,
    /// The tables and chains in which a rule exempts packets from tracking.
    pub notrack: BTreeSet<String>,
    /// Flowtables: established connections pass them by the rules.
    pub flowtables: BTreeSet<Flowtable>,
}

/// A flowtable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Flowtable {
    /// Its table and name.
    pub name: String,
    /// Whether network cards forward its connections without telling the kernel.
    pub in_hardware: bool,
}

/// Reads the rules of the calling thread's network namespace. A kernel without nftables has none;
/// where it is a module, asking loads it.
pub fn read() -> Result<Ruleset, NetfilterError> {
    let mut rules = Ruleset::default();
    let questions = [
        NfTablesMessage::GetTable(TableMessage {
            attributes: Vec::new(),
        }),
        NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        }),
        NfTablesMessage::GetRule(RuleMessage {
            attributes: Vec::new(),
        }),
        NfTablesMessage::GetFlowTable(Vec::new()),
    ];
    for question in questions {
        let each = |message| {
            if let NetfilterMessage {
                header,
                inner: NetfilterMessageInner::NfTables(message),
                ..
            } = message
            {
                rules.add(header.family, message);
            }
            Ok::<_, NetfilterError>(ControlFlow::Continue(()))
        };
        match netfilter::dump(NetfilterProtoFamily::Unspec, question, each) {
            // No nftables, or none that knows what is asked for.
            Err(NetfilterError::Refused(error))
                if matches!(error.raw_os_error(), Some(EINVAL | EOPNOTSUPP)) => {}
            done => done?,
        }
    }
    Ok(rules)
}

impl Ruleset {
    fn add(&mut self, family: NetfilterProtoFamily, message: NfTablesMessage) {
        match message {
            NfTablesMessage::NewTable(TableMessage { attributes }) => {
                let is_kube_proxy = |attribute: &TableAttribute| matches!(attribute, TableAttribute::Name(name) if name == KUBE_PROXY);
                if attributes.iter().any(is_kube_proxy) {
                    self.kube_proxy_tables.extend(RuleFamily::of(family));
                }
            }
            NfTablesMessage::NewChain(ChainMessage { attributes }) => {
                let in_nat = |attribute: &ChainAttribute| matches!(attribute, ChainAttribute::Table(name) if name == "nat");
                let is_services = |attribute: &ChainAttribute| matches!(attribute, ChainAttribute::Name(name) if name == KUBE_SERVICES);
                if attributes.iter().any(in_nat) && attributes.iter().any(is_services) {
                    self.kube_services_chains.extend(RuleFamily::of(family));
                }
            }
            NfTablesMessage::NewRule(RuleMessage { attributes })
                if attributes.iter().any(exempts) =>
            {
                self.notrack.insert(place(family, &attributes));
            }
            NfTablesMessage::NewFlowTable(attributes) => {
                let text = |kind| value(&attributes, kind).map(|value| text(&value));
                let [table, name] = [NFTA_FLOWTABLE_TABLE, NFTA_FLOWTABLE_NAME]
                    .map(|kind| text(kind).unwrap_or_default());
                let flags = value(&attributes, NFTA_FLOWTABLE_FLAGS)
                    .and_then(|flags| Some(u32::from_be_bytes(flags.try_into().ok()?)));
                self.flowtables.insert(Flowtable {
                    name: format!("{} {table} {name}", word(family)),
                    in_hardware: flags.is_some_and(|flags| flags & NFT_FLOWTABLE_HW_OFFLOAD != 0),
                });
            }
            _ => {}
        }
    }
}

impl RuleFamily {
    fn of(family: NetfilterProtoFamily) -> Option<Self> {
        match family {
            NetfilterProtoFamily::IPv4 => Some(Self::Ip),
            NetfilterProtoFamily::IPv6 => Some(Self::Ip6),
            _ => None,
        }
    }
}

/// Whether an attribute of a rule is an expression that exempts packets from tracking: `notrack`,
/// or the targets `NOTRACK` and `CT --notrack` of iptables.
fn exempts(attribute: &RuleAttribute) -> bool {
    let RuleAttribute::Expressions(expressions) = attribute else {
        return false;
    };
    expressions
        .iter()
        .filter_map(|expression| match expression {
            ListAttribute::Element(parts) => Some(parts),
            _ => None,
        })
        .flatten()
        .any(|part| match part {
            ExpressionAttribute::Name(name) => name == "notrack",
            ExpressionAttribute::Data(Expressions::Other {
                expression_type,
                attributes,
            }) if expression_type == "target" => exempts_by_target(attributes),
            _ => false,
        })
}

fn exempts_by_target(attributes: &[DefaultNla]) -> bool {
    let name = value(attributes, NFTA_TARGET_NAME).map(|name| text(&name));
    match name.as_deref() {
        Some("NOTRACK") => true,
        // struct xt_ct_target_info begins with its flags, in host order.
        Some("CT") => value(attributes, NFTA_TARGET_INFO).is_some_and(|info| {
            matches!(info[..], [a, b, ..] if u16::from_ne_bytes([a, b]) & XT_CT_NOTRACK != 0)
        }),
        _ => false,
    }
}

/// `ip raw PREROUTING`.
fn place(family: NetfilterProtoFamily, attributes: &[RuleAttribute]) -> String {
    let mut place = word(family).to_owned();
    for attribute in attributes {
        if let RuleAttribute::Table(name) | RuleAttribute::Chain(name) = attribute {
            place.push(' ');
            place.push_str(name);
        }
    }
    place
}

/// A family as nft names it.
fn word(family: NetfilterProtoFamily) -> &'static str {
    match family {
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        NetfilterProtoFamily::Inet => "inet",
        NetfilterProtoFamily::NetDev => "netdev",
        NetfilterProtoFamily::Bridge => "bridge",
        NetfilterProtoFamily::ARP => "arp",
        _ => "?",
    }
}

fn value(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let attribute = attributes
        .iter()
        .find(|attribute| attribute.kind() == kind)?;
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    Some(value)
}

/// A string of netlink, which ends with a 0.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `nft_flow_table_fill_info` writes it; not every kernel that tests run on has flowtables.
    #[test]
    fn a_flowtable_in_hardware_says_so() {
        let flowtable = |name: &str, flags: Option<u32>| {
            let mut attributes = vec![
                DefaultNla::new(NFTA_FLOWTABLE_TABLE, b"filter\0".to_vec()),
                DefaultNla::new(NFTA_FLOWTABLE_NAME, [name.as_bytes(), b"\0"].concat()),
            ];
            attributes
                .extend(flags.map(|flags| {
                    DefaultNla::new(NFTA_FLOWTABLE_FLAGS, flags.to_be_bytes().into())
                }));
            NfTablesMessage::NewFlowTable(attributes)
        };
        let mut rules = Ruleset::default();
        for (name, flags) in [("none", None), ("software", Some(0)), ("hardware", Some(1))] {
            rules.add(NetfilterProtoFamily::Inet, flowtable(name, flags));
        }
        let found: Vec<_> = rules
            .flowtables
            .iter()
            .map(|flowtable| (flowtable.name.as_str(), flowtable.in_hardware))
            .collect();
        assert_eq!(
            found,
            [
                ("inet filter hardware", true),
                ("inet filter none", false),
                ("inet filter software", false)
            ]
        );
    }

    #[test]
    fn only_the_target_that_says_so_exempts() {
        let target = |name: &str, info: &[u8]| {
            vec![
                DefaultNla::new(NFTA_TARGET_NAME, [name.as_bytes(), b"\0"].concat()),
                DefaultNla::new(NFTA_TARGET_INFO, info.to_vec()),
            ]
        };
        let flags = |flags: u16| [&flags.to_ne_bytes()[..], &[0; 6]].concat();
        assert!(exempts_by_target(&target("NOTRACK", &[])));
        assert!(exempts_by_target(&target("CT", &flags(1))));
        // A zone or a helper.
        assert!(!exempts_by_target(&target("CT", &flags(2))));
        assert!(!exempts_by_target(&target("CT", &[])));
        assert!(!exempts_by_target(&target("MASQUERADE", &flags(1))));
        assert!(!exempts_by_target(&[]));
    }
}
