//! From a port to its endpoints: which of them a connection gets, and what is done to it there.

use std::net::SocketAddr;

use super::{Family, NAT, ProxiedPort, Renderer, endpoint_chain, host};

impl Renderer<'_> {
    /// Spreads over endpoints: who came before goes where it went before, the others at random.
    pub(super) fn spread(&mut self, chain: &str, port: &ProxiedPort, endpoints: &[SocketAddr]) {
        let target = |endpoint: &SocketAddr| endpoint_chain(&port.name, port.protocol, *endpoint);
        let comment =
            |endpoint: &SocketAddr| format!("-m comment --comment \"{} -> {endpoint}\"", port.name);
        if let Some(seconds) = port.affinity {
            for endpoint in endpoints {
                let (target, comment) = (target(endpoint), comment(endpoint));
                let known = format!(
                    "-m recent --rcheck --seconds {seconds} --reap {}",
                    self.list(&target)
                );
                self.rules
                    .append(NAT, chain, format!("{comment} {known} -j {target}"));
            }
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let (target, comment) = (target(endpoint), comment(endpoint));
            let left = endpoints.len() - index;
            let chance = if left > 1 {
                format!(" {}", probability(left))
            } else {
                String::new()
            };
            self.rules
                .append(NAT, chain, format!("{comment}{chance} -j {target}"));
        }
    }

    /// One endpoint: masqueraded when it calls itself, so that its answer comes back here.
    pub(super) fn endpoint(&mut self, port: &ProxiedPort, endpoint: SocketAddr) {
        let ProxiedPort { name, protocol, .. } = port;
        let chain = endpoint_chain(name, *protocol, endpoint);
        let comment = format!("-m comment --comment \"{name}\"");
        let from_itself = host(endpoint.ip());
        self.rules.append(
            NAT,
            &chain,
            format!("-s {from_itself} {comment} -j KUBE-MARK-MASQ"),
        );
        let remember = match port.affinity {
            Some(_) => format!(" -m recent --set {}", self.list(&chain)),
            None => String::new(),
        };
        let rule = format!(
            "-p {protocol} {comment}{remember} -m {protocol} -j DNAT --to-destination {endpoint}"
        );
        self.rules.append(NAT, &chain, rule);
    }

    /// The list of clients that an endpoint served before.
    fn list(&self, endpoint_chain: &str) -> String {
        let mask = match self.site.family {
            Family::V4 => "255.255.255.255",
            Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        };
        format!("--name {endpoint_chain} --mask {mask} --rsource")
    }
}

/// One chance in `left`, as the kernel holds it, in units of 2^-31, and iptables-save prints it.
fn probability(left: usize) -> String {
    const ONE: f64 = 2_147_483_648.0;
    // kube-proxy gives ten decimals; the kernel rounds what remains.
    let given = (1e10 / as_f64(left)).round() / 1e10;
    format!(
        "-m statistic --mode random --probability {:.11}",
        (given * ONE).round() / ONE
    )
}

/// The number of endpoints, which the API limits far below what a `f64` holds exactly.
fn as_f64(endpoints: usize) -> f64 {
    f64::from(u32::try_from(endpoints).expect("a Service has fewer endpoints than that"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_printed_as_iptables_save_prints_them() {
        let chance = |left| {
            probability(left)
                .rsplit_once(' ')
                .expect("words")
                .1
                .to_owned()
        };
        assert_eq!(chance(2), "0.50000000000");
        assert_eq!(chance(3), "0.33333333349");
    }
}
