//! Which of the addresses that a header lists is the client's.
//!
//! A header is as good as who wrote it. Each proxy appends the address that it was spoken to from;
//! whatever stands left of that it was told. So the list is read from the right: the peer of the
//! connection must be trusted, then whoever it names, and so on; the first who is not trusted is
//! the client, and what stands left of it is its own invention. Where all are trusted it is the
//! farthest.

use std::net::IpAddr;

use super::{Carrier, Chain, Reading, Reason};

/// A client that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its address.
    pub address: IpAddr,
    /// In what it was carried.
    pub from: Carrier,
}

/// Whether what an address says of others is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is not: it is a client.
    None,
    /// It is.
    Full,
    /// It is a node's, and so is its masquerade: who spoke from it need not be the node.
    Node,
}

impl From<bool> for Trust {
    fn from(is_trusted: bool) -> Self {
        if is_trusted { Self::Full } else { Self::None }
    }
}

/// The client of a connection from `peer` that begins with `reading`.
pub fn recover(
    reading: &Reading,
    peer: IpAddr,
    trust: impl Fn(IpAddr) -> Trust,
) -> Result<Recovered, Reason> {
    let chains = match reading {
        Reading::Found(chains) => chains,
        Reading::Nothing(reason) => return Err(*reason),
        Reading::TlsTo(_) => return Err(Reason::Tls),
    };
    if trust(peer) == Trust::None {
        return Err(Reason::UntrustedPeer);
    }
    let mut clients = chains.iter().map(|chain| client(chain, &trust));
    let first = clients.next().ok_or(Reason::NoHeader)?;
    // A proxy that writes the one kind passes the other as the client sent it.
    if clients.any(|other| other.map(|other| other.address) != first.map(|first| first.address)) {
        return Err(Reason::HeadersDisagree);
    }
    first
}

fn client(chain: &Chain, trust: impl Fn(IpAddr) -> Trust) -> Result<Recovered, Reason> {
    let mut client = Err(Reason::NoHeader);
    for hop in chain.hops.iter().rev() {
        let address = hop.ok_or(Reason::HiddenHop)?;
        client = Ok(Recovered {
            address,
            from: chain.carrier,
        });
        match trust(address) {
            Trust::None => break,
            Trust::Full => {}
            // A proxy on that node, or anybody whom its masquerade let in: what stands left of it
            // may be the client's invention, and it is no client either.
            Trust::Node => return Err(Reason::Masqueraded),
        }
    }
    client
}
