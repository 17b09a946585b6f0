//! Which servers `NO_PROXY` keeps from a proxy, as kubectl takes it
//! (`golang.org/x/net/http/httpproxy`): `kube` compares it with the proxy's own address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Whether a server is reached without the proxy that the environment names.
pub(super) fn is_spared(host: &str, port: Option<u16>, no_proxy: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    no_proxy
        .split(',')
        .map(str::trim)
        .filter(|pattern| !pattern.is_empty())
        .any(|pattern| matches(pattern, host, ip, port))
}

fn matches(pattern: &str, host: &str, ip: Option<IpAddr>, port: Option<u16>) -> bool {
    if pattern == "*" {
        return true;
    }
    if let (Ok(network), Some(ip)) = (pattern.parse::<IpNet>(), ip) {
        return network.contains(&ip);
    }
    if let Ok(address) = pattern.parse::<IpAddr>() {
        return Some(address) == ip;
    }
    let (name, its_port) = match pattern.rsplit_once(':') {
        Some((name, its_port)) => (name, Some(its_port)),
        None => (pattern, None),
    };
    let is_its_port = its_port.is_none_or(|its| its.parse().ok() == port);
    let name = name.trim_start_matches('*').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    let is_its_name = match name.strip_prefix('.') {
        // Only what is below it.
        Some(_) => host.ends_with(&name),
        None => host == name || host.ends_with(&format!(".{name}")),
    };
    is_its_port && !name.is_empty() && is_its_name
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("api.example.com", "", false)]
    #[case("api.example.com", "example.com", true)]
    #[case("api.example.com", "EXAMPLE.com, else", true)]
    #[case("api.example.com", ".example.com", true)]
    #[case("api.example.com", "*.example.com", true)]
    #[case("example.com", ".example.com", false)]
    #[case("api.example.com", "ample.com", false)]
    #[case("api.example.com", "api.example.com:6443", true)]
    #[case("api.example.com", "api.example.com:443", false)]
    #[case("api.example.com", "*", true)]
    #[case("10.1.2.3", "10.0.0.0/8", true)]
    #[case("10.1.2.3", "192.168.0.0/16,10.1.2.3", true)]
    #[case("10.1.2.3", "10.1.2.4", false)]
    #[case("[fd00::1]", "fd00::/8", true)]
    #[case("127.0.0.1", "", true)]
    #[case("localhost", "", true)]
    #[case("api.example.com", " , ,:6443,.", false)]
    fn servers_are_spared_as_kubectl_spares_them(
        #[case] host: &str,
        #[case] no_proxy: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(is_spared(host, Some(6443), no_proxy), expected);
    }
}
