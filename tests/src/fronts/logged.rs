//! What programs log of connections, in lines of ours.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;

use super::Proxy;

/// Whom a program's socket saw, as it logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The peer of the client's side.
    pub saw: SocketAddr,
    /// What the program was told to log beside: what was asked for, or the program's own end of the
    /// other side.
    pub of: String,
}

impl Logged {
    /// What a program logged so far.
    pub fn by(proxy: &Proxy) -> Result<Vec<Self>> {
        let text = fs::read_to_string(proxy.path("log"))?;
        Ok(text.lines().filter_map(Self::parse).collect())
    }

    /// A line of ours: `told [ADDRESS]:PORT WHAT`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("told ")?.split(' ');
        Some(Self {
            saw: end(words.next()?)?,
            of: words.next()?.to_owned(),
        })
    }

    /// The program's own end of the other side.
    pub fn own_end(&self) -> Option<SocketAddr> {
        end(&self.of)
    }
}

/// An address in brackets, of either family, and a port.
pub(super) fn end(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.strip_prefix('[')?.split_once("]:")?;
    let ip: IpAddr = ip.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port.parse().ok()?))
}
