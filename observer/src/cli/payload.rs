//! What `trace` and `agent` ask of clients' first bytes.

use clap::Args;
use ipnet::IpNet;

use crate::observe::{Asking, Trusted, Whose, network};

/// Whose client is looked for in what it sends first, and who is believed.
#[derive(Clone, Debug, Args)]
pub(super) struct PayloadOptions {
    /// Look for the client's own address in what it sends first: in a PROXY protocol header, or in
    /// X-Forwarded-For or Forwarded of its first request. 2,048 bytes at most, of connections
    /// through front doors only; records hold the address, never the bytes. A connection is then
    /// told when that is read, or when its client was silent for as long as for an answer (four
    /// seconds at most).
    #[arg(long, value_name = "OF", value_enum, default_value_t = Whose::Off)]
    payload: Whose,
    /// Who may write such a header; may be repeated, or be a list. A header from anybody else is
    /// not believed, and in a list of addresses the client is the first from the right who is not
    /// one of these. A node is not believed by a connection straight to a pod: its kube-proxy
    /// passes on what anybody wrote. Name it by its address if it is a proxy. `pods`, and this
    /// node's own processes, are believed only if they name whom they were seen to get a connection
    /// from: an application may pass on what anybody wrote. A pod of another node is known by a
    /// network only. `load-balancers` are the addresses in the status of Services and those of
    /// --load-balancer: name them if they write the header themselves, since through one that
    /// forwards TCP as it is any client writes it [default: nodes, pods and load-balancer-status:
    /// the addresses in the status of Services].
    #[arg(
        long,
        value_name = "CIDR|nodes|pods|load-balancer-status|load-balancers",
        value_delimiter = ','
    )]
    trusted_proxies: Vec<Trusted>,
    /// A network or address of load balancers: the subnets of an ALB or NLB, an L4 proxy; may be
    /// repeated, or be a list. The addresses in the status of Services are known without. A
    /// connection that comes from one was opened by it: the client's own address was lost before any
    /// node. What it sends is believed only with --trusted-proxies load-balancers.
    #[arg(
        long = "load-balancer",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = network
    )]
    load_balancers: Vec<IpNet>,
}

impl From<PayloadOptions> for Asking {
    fn from(options: PayloadOptions) -> Self {
        let PayloadOptions {
            payload,
            trusted_proxies,
            load_balancers,
        } = options;
        let default = Self::default();
        Self {
            whose: payload,
            trusted: if trusted_proxies.is_empty() {
                default.trusted
            } else {
                trusted_proxies
            },
            load_balancers,
        }
    }
}
