//! Transport protocols and their ports.

use std::fmt;

use anyhow::{Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};
use serde::Deserialize;

/// A transport protocol that a Service can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP. Not every kernel has sockets for it.
    Sctp,
}

/// A port of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

impl Protocol {
    /// The protocol of an object's port; an absent one means TCP.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            None | Some("TCP") => Ok(Self::Tcp),
            Some("UDP") => Ok(Self::Udp),
            Some("SCTP") => Ok(Self::Sctp),
            Some(other) => bail!("there is no protocol {other:?}"),
        }
    }

    /// The word of objects and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// What a socket of it is made with.
    pub(crate) const fn of_socket(self) -> (SockType, SockProtocol) {
        match self {
            Self::Tcp => (SockType::Stream, SockProtocol::Tcp),
            Self::Udp => (SockType::Datagram, SockProtocol::Udp),
            Self::Sctp => (SockType::Stream, SockProtocol::Sctp),
        }
    }

    /// Whether this kernel has sockets for it.
    pub fn has_sockets(self) -> bool {
        let (kind, protocol) = self.of_socket();
        let tried = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, protocol);
        !matches!(tried, Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT))
    }
}

impl Port {
    /// A port of TCP.
    pub const fn tcp(number: u16) -> Self {
        Self {
            protocol: Protocol::Tcp,
            number,
        }
    }
}

/// In the lower case of rules.
impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// As kubectl prints it.
impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.number, self.protocol.as_str())
    }
}
