//! Attributes of target groups, as the annotations set them.

use super::super::asked::{Asked, Port, boolean, items};
use super::super::{Finding, Setting};
use super::{ATTRIBUTES, AUTO_MODE, By, CONTROLLER, IN_TREE, PROXY_PROTOCOL};

pub(super) const PRESERVE: &str = "preserve_client_ip.enabled";
const PROXY: &str = "proxy_protocol_v2.enabled";
/// The attribute by which EKS Auto Mode switches it on, among those of the load balancer.
const AUTO_MODE_PROXY: &str = "proxy_protocol.v2.enabled";
const AUTO_MODE_ATTRIBUTES: &str = "service.beta.kubernetes.io/aws-load-balancer-attributes";
const PROXY_PER_PORT: &str =
    "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol-per-target-group";

/// An attribute with a value of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    On,
    Off,
    /// Its value is none.
    NotUnderstood,
    NotSet,
}

/// The value of a key of an annotation `k1=v1,k2=v2`.
fn value_of<'a>(list: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = items(list).filter_map(|item| item.split_once('='));
    let (_, value) = pairs.find(|(its, _)| its.trim() == key)?;
    Some(value.trim())
}

/// An attribute for a port. The port's own annotation goes before the one for all, unless it is
/// empty (`pkg/service/model_build_target_group.go`).
fn attribute<'a>(asked: Asked<'a>, by: By, port: Port<'_>, key: &str) -> Option<&'a str> {
    let of_port = (by != By::InTree).then(|| format!("{ATTRIBUTES}.{}", port.number));
    of_port
        .and_then(|name| value_of(asked.annotation(&name)?, key))
        .filter(|value| !value.is_empty())
        .or_else(|| value_of(asked.annotation(ATTRIBUTES)?, key))
}

fn read(value: Option<&str>) -> Attribute {
    match value.map(boolean) {
        None => Attribute::NotSet,
        Some(Some(true)) => Attribute::On,
        Some(Some(false)) => Attribute::Off,
        Some(None) => Attribute::NotUnderstood,
    }
}

/// Whether a port's targets see the client's address.
pub(super) fn preserve(asked: Asked<'_>, by: By, port: Port<'_>) -> Attribute {
    read(attribute(asked, by, port, PRESERVE))
}

/// Whether a port's targets get a PROXY header.
pub(super) fn sends_proxy_header(asked: Asked<'_>, by: By, port: Port<'_>) -> bool {
    let attribute = attribute(asked, by, port, PROXY).and_then(boolean) == Some(true);
    match by {
        By::InTree => attribute,
        By::AutoMode => {
            let its = asked.annotation(AUTO_MODE_ATTRIBUTES);
            let its = its.and_then(|list| value_of(list, AUTO_MODE_PROXY));
            attribute || its.and_then(boolean) == Some(true)
        }
        // The one for all ports goes before the list of ports, and that before the attribute.
        By::Controller => match (
            asked.annotation(PROXY_PROTOCOL),
            asked.annotation(PROXY_PER_PORT),
        ) {
            (Some(all), _) => all == "*",
            (None, Some(list)) => items(list).any(|item| item.parse() == Ok(port.number)),
            (None, None) => attribute,
        },
    }
}

/// The annotations that decided.
pub(super) fn settings(asked: Asked<'_>, by: By) -> Vec<Setting> {
    let source = match by {
        By::InTree => IN_TREE,
        By::Controller => CONTROLLER,
        By::AutoMode => AUTO_MODE,
    };
    let names: &[&str] = match by {
        By::InTree => &[ATTRIBUTES],
        By::Controller => &[PROXY_PROTOCOL, PROXY_PER_PORT, ATTRIBUTES],
        By::AutoMode => &[AUTO_MODE_ATTRIBUTES, ATTRIBUTES],
    };
    let whole = names.iter().filter_map(|name| asked.if_set(name, source));
    let of_ports = of_ports(asked, by).map(|(name, value)| Setting::set(name, value, source));
    whole.chain(of_ports).collect()
}

fn of_ports(asked: Asked<'_>, by: By) -> impl Iterator<Item = (&str, &str)> {
    let is_its = move |name: &str| by != By::InTree && is_of_port(name);
    asked.annotations().filter(move |(name, _)| is_its(name))
}

fn is_of_port(name: &str) -> bool {
    let rest = name.strip_prefix(ATTRIBUTES);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// Values that are none: the controller refuses the whole Service for them.
pub(super) fn not_understood(asked: Asked<'_>, by: By) -> Vec<Finding> {
    let whole = asked
        .annotation(ATTRIBUTES)
        .map(|value| (ATTRIBUTES, value));
    let lists = whole.into_iter().chain(of_ports(asked, by));
    let mut found: Vec<_> = lists
        .flat_map(|(name, list)| {
            [PRESERVE, PROXY].into_iter().filter_map(move |key| {
                let value = value_of(list, key)?;
                let is_none = !value.is_empty() && boolean(value).is_none();
                is_none.then(|| asked.not_understood(name, &format!("{key}={value}")))
            })
        })
        .collect();
    let proxy = asked
        .annotation(PROXY_PROTOCOL)
        .filter(|it| by == By::Controller && *it != "*");
    found.extend(proxy.map(|value| asked.not_understood(PROXY_PROTOCOL, value)));
    found
}
