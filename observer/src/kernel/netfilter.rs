//! Questions to netfilter over netlink (`net/netfilter/nfnetlink.c`), and their answers.
//!
//! Needs `CAP_NET_ADMIN`, and the caller's network namespace to be the node's.

use std::io;
use std::ops::ControlFlow;

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// More than one answer with all its attributes takes, and than one part of a dump
/// (`net/netlink/af_netlink.c`, `netlink_dump`).
const ANSWER_MAX: usize = 32 * 1024;

/// A question that netfilter did not answer.
#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    /// The socket failed.
    #[error("netfilter cannot be asked over netlink")]
    Socket(#[from] io::Error),
    /// The kernel refused.
    #[error("netfilter refuses to answer: {0}")]
    Refused(io::Error),
    /// The answer makes no sense.
    #[error("netfilter's answer makes no sense")]
    Answer(#[from] DecodeError),
    /// The answer is of another kind.
    #[error("netfilter's answer is to another question")]
    Unexpected,
}

/// A line to netfilter.
#[derive(Debug)]
pub(super) struct Line(Socket);

impl Line {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers before `send` returns; an answer that is not there never comes.
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// A question with a single answer.
    pub(super) fn ask(
        &self,
        family: NetfilterProtoFamily,
        question: impl Into<NetfilterMessageInner>,
    ) -> Result<NetlinkPayload<NetfilterMessage>, NetfilterError> {
        self.send(family, 0, question.into())?;
        let mut bytes = Vec::with_capacity(ANSWER_MAX);
        self.0.recv(&mut bytes, 0)?;
        Ok(NetlinkMessage::deserialize(&bytes)?.payload)
    }

    fn send(
        &self,
        family: NetfilterProtoFamily,
        flags: u16,
        question: NetfilterMessageInner,
    ) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), question);
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        Ok(())
    }
}

/// Asks for all there is, and hands one after the other to `each` until it breaks off.
pub(super) fn dump<E: From<NetfilterError>>(
    family: NetfilterProtoFamily,
    question: impl Into<NetfilterMessageInner>,
    mut each: impl FnMut(NetfilterMessage) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    // A line of its own: closing it ends a dump that nobody reads to its end.
    let line = Line::open().map_err(NetfilterError::from)?;
    line.send(family, NLM_F_DUMP, question.into())
        .map_err(NetfilterError::from)?;
    let mut bytes = Vec::with_capacity(ANSWER_MAX);
    loop {
        bytes.clear();
        line.0.recv(&mut bytes, 0).map_err(NetfilterError::from)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(NetfilterError::from)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            rest = rest
                .get(length.saturating_add(3) & !3..)
                .unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(message) => {
                    if each(message)?.is_break() {
                        return Ok(());
                    }
                }
                NetlinkPayload::Error(error) => {
                    return Err(NetfilterError::Refused(error.to_io()).into());
                }
                _ => return Ok(()),
            }
        }
    }
}
