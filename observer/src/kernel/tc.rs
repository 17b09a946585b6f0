//! Traffic control of interfaces, over route netlink: clsact qdiscs and the filters on them.
//!
//! Attaching is aya's work; this lists what is there, ours and others', and removes what a dead
//! observer left. Minimum kernel: 4.5 (clsact). Sources: `net/sched/cls_api.c`, `cls_bpf.c`,
//! `sch_ingress.c`.

use std::fs::File;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::programs::TcAttachType;
use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr as KernelAddress};
use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};

use crate::observation::IfIndex;

/// `ETH_P_ALL`, the protocol of a filter that takes every packet.
const ALL_PROTOCOLS: u16 = 3;
/// The handle of a clsact or ingress qdisc, which share a place.
const QDISC: TcHandle = TcHandle {
    major: u16::MAX,
    minor: 0,
};
/// How long another observer's change is waited for. One takes milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(2);

/// Something the kernel did not tell or do.
#[derive(Debug, thiserror::Error)]
pub enum TcError {
    /// The socket failed.
    #[error("route netlink cannot be used")]
    Socket(#[from] io::Error),
    /// The kernel refused.
    #[error("the kernel does not {what}: {error}")]
    Refused {
        /// To do what.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The answer is none.
    #[error("the kernel's answer makes no sense")]
    Answer(#[from] DecodeError),
}

/// The two sides of an interface, in the order in which programs are put on them: who arrives
/// must be noted before who leaves is looked up.
pub(super) const SIDES: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// The qdisc that has, or could have, filters before the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Qdisc {
    pub(super) interface: IfIndex,
    /// `clsact`, or the older `ingress`, which has no egress side.
    pub(super) kind: String,
}

/// A filter of a clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) interface: IfIndex,
    pub(super) side: TcAttachType,
    /// A lower one runs earlier.
    pub(super) priority: u16,
    pub(super) handle: TcHandle,
    /// Of a BPF filter: its name and the id of its program.
    pub(super) program: Option<(String, u32)>,
}

/// A line to the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Tc(Socket);

impl Tc {
    pub(super) fn open() -> Result<Self, TcError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&KernelAddress::new(0, 0))?;
        // The kernel answers before `send` returns; an answer that is not there never comes.
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// The clsact and ingress qdiscs of all interfaces.
    pub(super) fn qdiscs(&self) -> Result<Vec<Qdisc>, TcError> {
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let mut qdiscs = Vec::new();
        for message in self.dump("list its qdiscs", request)? {
            // What this crate cannot decode is another kind's.
            let Ok(RouteNetlinkMessage::NewQueueDiscipline(message)) = message else {
                continue;
            };
            if message.header.handle != QDISC {
                continue;
            }
            let kind = message.attributes.into_iter().find_map(|attribute| {
                let TcAttribute::Kind(kind) = attribute else {
                    return None;
                };
                Some(kind)
            });
            qdiscs.push(Qdisc {
                interface: IfIndex(message.header.index.cast_unsigned()),
                kind: kind.unwrap_or_default(),
            });
        }
        Ok(qdiscs)
    }

    /// The filters on one side of an interface, in the order in which they run; none where
    /// there is no qdisc or no interface. Also lists, with handle 0, what holds the filters of one
    /// priority.
    pub(super) fn filters(
        &self,
        interface: IfIndex,
        side: TcAttachType,
    ) -> Result<Vec<Filter>, TcError> {
        let request = RouteNetlinkMessage::GetTrafficFilter(message(interface, side));
        let filters = self.dump("list its filters", request)?;
        Ok(filters
            .into_iter()
            .map(|message| match message {
                Ok(RouteNetlinkMessage::NewTrafficFilter(TcMessage {
                    header, attributes, ..
                })) => Filter {
                    interface,
                    side,
                    priority: (header.info >> 16) as u16,
                    handle: header.handle,
                    program: program(&attributes),
                },
                // One that this crate cannot decode is there all the same.
                _ => Filter {
                    interface,
                    side,
                    priority: 0,
                    handle: TcHandle::UNSPEC,
                    program: None,
                },
            })
            .collect())
    }

    /// Removes a filter; one that is gone already is no error.
    pub(super) fn remove_filter(&self, filter: &Filter) -> Result<(), TcError> {
        let mut message = message(filter.interface, filter.side);
        message.header.handle = filter.handle;
        message.header.info = u32::from(filter.priority) << 16 | u32::from(ALL_PROTOCOLS.to_be());
        self.remove(
            "remove a filter",
            RouteNetlinkMessage::DelTrafficFilter(message),
        )
    }

    /// Removes the clsact qdisc of an interface if it has no filters left.
    pub(super) fn remove_empty_qdisc(&self, interface: IfIndex) -> Result<(), TcError> {
        for side in SIDES {
            if !self.filters(interface, side)?.is_empty() {
                return Ok(());
            }
        }
        let header = TcHeader {
            index: interface.0.cast_signed(),
            handle: QDISC,
            parent: TcHandle::CLSACT,
            ..TcHeader::default()
        };
        let message = TcMessage::from_parts(header, vec![TcAttribute::Kind("clsact".to_owned())]);
        self.remove(
            "remove a clsact qdisc",
            RouteNetlinkMessage::DelQueueDiscipline(message),
        )
    }

    fn remove(&self, what: &'static str, request: RouteNetlinkMessage) -> Result<(), TcError> {
        self.send(request, NLM_F_ACK)?;
        let (bytes, _) = self.0.recv_from_full()?;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)?.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                let error = error.to_io();
                if error
                    .raw_os_error()
                    .map(Errno::from_raw)
                    .is_some_and(is_gone)
                {
                    return Ok(());
                }
                Err(TcError::Refused { what, error })
            }
            _ => Ok(()),
        }
    }

    fn dump(
        &self,
        what: &'static str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<Result<RouteNetlinkMessage, DecodeError>>, TcError> {
        self.send(request, NLM_F_DUMP)?;
        let mut messages = Vec::new();
        loop {
            let (bytes, _) = self.0.recv_from_full()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let length = NetlinkBuffer::new_checked(rest)?.length() as usize;
                // Each begins at a multiple of four bytes.
                let (message, next) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
                rest = next;
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
                    .map(|message| message.payload)
                {
                    Ok(NetlinkPayload::Done(_)) => return Ok(messages),
                    Ok(NetlinkPayload::Error(error)) => {
                        let error = error.to_io();
                        return Err(TcError::Refused { what, error });
                    }
                    Ok(NetlinkPayload::InnerMessage(message)) => messages.push(Ok(message)),
                    Ok(_) => {}
                    Err(error) => messages.push(Err(error)),
                }
            }
        }
    }

    fn send(&self, request: RouteNetlinkMessage, flags: u16) -> Result<(), TcError> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(request));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        Ok(())
    }
}

/// To be held while the filters of this network namespace are changed: else one observer could
/// remove a qdisc, empty as it saw it, at the moment when another puts its filters there.
///
/// It is an advisory lock on the namespace itself, so it ends with whoever holds it, also by
/// SIGKILL. Where it is not to be had, nothing waits for it.
pub(super) fn lock() -> Option<File> {
    let namespace = File::open("/proc/thread-self/ns/net").ok()?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while namespace.try_lock().is_err() && Instant::now() < deadline {
        sleep(LOCK_INTERVAL);
    }
    Some(namespace)
}

/// Whether the kernel's refusal says that the interface, the qdisc or the filter is gone.
pub(super) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::ENODEV | Errno::EINVAL | Errno::ENOENT)
}

fn message(interface: IfIndex, side: TcAttachType) -> TcMessage {
    let of_clsact = |minor| TcHandle {
        major: u16::MAX,
        minor,
    };
    let mut message = TcMessage::with_index(interface.0.cast_signed());
    message.header.parent = match side {
        TcAttachType::Ingress => of_clsact(TcHandle::MIN_INGRESS),
        TcAttachType::Egress => of_clsact(TcHandle::MIN_EGRESS),
        TcAttachType::Custom(parent) => parent.into(),
    };
    message
}

fn program(attributes: &[TcAttribute]) -> Option<(String, u32)> {
    let options = attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut name, mut id) = (None, None);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(it)) => name = Some(it.clone()),
            TcOption::Bpf(TcFilterBpfOption::ProgId(it)) => id = Some(*it),
            _ => {}
        }
    }
    Some((name?, id?))
}
