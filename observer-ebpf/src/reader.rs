//! Headers that are not plain, or not linear, read by `bpf_skb_load_bytes`, which also reaches what
//! lies beyond the linear part of the skb (a SYN was seen with 14 linear bytes of 74).

use aya_ebpf::programs::TcContext;
use network_types::{
    icmp::Icmpv4Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use observer_ebpf::{Counter, FAMILY_IPV4, FAMILY_IPV6, Tuple};

use crate::{
    maps,
    packet::{
        ABORT, AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMP, ICMP_UNREACHABLE,
        ICMP6, ICMP6_UNREACHABLE, INIT, INIT_ACK, IPV4, IPV6, Packet, ROUTING, Role, SCTP,
        SCTP_CHUNK, TCP, TCP_DATA_OFFSET, TCP_FLAGS, TCP_SEQUENCE, UDP, datagram, ethertype,
        is_observed, tcp_role,
    },
};

/// Offset of the verification tag in the common header of an SCTP packet (RFC 9260, 3.1).
const SCTP_TAG: usize = 4;
/// Offset of the initiate tag of an INIT chunk that is the first (RFC 9260, 3.3.2).
pub(crate) const SCTP_INITIATE_TAG: usize = 16;
/// The flag of an ABORT whose verification tag is the sender's own (RFC 9260, 8.5.1).
const ABORT_REFLECTS: u8 = 1;

/// Code 4, fragmentation needed, refuses a size, not a connection.
const ICMP_FRAGMENTATION_NEEDED: u8 = 4;
/// A packet with more extension headers in front of its transport header is not followed.
const EXTENSIONS_MAX: usize = 6;

/// Reads the headers of what [`crate::packet::handshake`] told nothing of into `packet`. `None`: it neither opens a
/// connection nor answers an opening.
#[inline(always)]
pub(crate) fn parse<const LINK: usize>(context: &TcContext, packet: &mut Packet) -> Option<()> {
    if datagram::<LINK>(context, packet).is_some() {
        return Some(());
    }
    if ethertype(context) == IPV4 {
        parse_ipv4(context, LINK, packet)
    } else {
        parse_ipv6(context, LINK, packet)
    }
}

/// Where the data of a TCP segment lies in its packet.
#[derive(Clone, Copy)]
pub(crate) struct Data {
    pub(crate) start: u32,
    pub(crate) length: u32,
}

/// Reads the addresses, ports and sequence number of a TCP segment with data into `packet`. `None`:
/// it is none.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "lengths of packets")]
pub(crate) fn data<const LINK: usize>(context: &TcContext, packet: &mut Packet) -> Option<Data> {
    let (transport, said) = match ethertype(context) {
        IPV4 => {
            let header: Ipv4Hdr = load(context, LINK)?;
            if header.frag_offset() != 0 || header.proto != TCP {
                return None;
            }
            packet.family = FAMILY_IPV4;
            addresses_ipv4(&header, &mut packet.tuple);
            let said = usize::from(u16::from_be_bytes(header.tot_len));
            (LINK + usize::from(header.ihl()), said)
        }
        IPV6 => {
            let header: Ipv6Hdr = load(context, LINK)?;
            let (protocol, transport) = transport_ipv6(context, &header, LINK)?;
            if protocol != TCP {
                return None;
            }
            packet.family = FAMILY_IPV6;
            addresses_ipv6(&header, &mut packet.tuple);
            let said = usize::from(u16::from_be_bytes(header.payload_len));
            (transport, if said == 0 { 0 } else { said + Ipv6Hdr::LEN })
        }
        _ => return None,
    };
    let header: TcpHdr = load(context, transport)?;
    let lengths: u8 = load(context, transport + TCP_DATA_OFFSET)?;
    packet.protocol = TCP;
    packet.sequence = u32::from_be_bytes(header.seq);
    packet.tuple.source_port = u16::from_be_bytes(header.source);
    packet.tuple.destination_port = u16::from_be_bytes(header.dest);
    let start = transport as u32 + u32::from(lengths >> 4) * 4;
    let whole = context.len();
    // Behind a short packet the link pads; a very large one (BIG TCP) does not say how long it is.
    let end = match LINK as u32 + said as u32 {
        _ if said == 0 => whole,
        end if end < whole => end,
        _ => whole,
    };
    (start < end).then(|| Data {
        start,
        length: end - start,
    })
}

#[inline(always)]
fn parse_ipv4(context: &TcContext, offset: usize, packet: &mut Packet) -> Option<()> {
    let header: Ipv4Hdr = load(context, offset)?;
    // Later fragments carry no transport header.
    if header.frag_offset() != 0 {
        return None;
    }
    packet.family = FAMILY_IPV4;
    packet.ttl = header.ttl;
    let transport = offset + usize::from(header.ihl());
    match header.proto {
        protocol @ (TCP | UDP | SCTP) => {
            addresses_ipv4(&header, &mut packet.tuple);
            packet.protocol = protocol;
            transport_header(context, transport, packet)
        }
        ICMP => {
            let [kind, code]: [u8; 2] = load(context, transport)?;
            if kind != ICMP_UNREACHABLE || code == ICMP_FRAGMENTATION_NEEDED {
                return None;
            }
            let quoted = transport + Icmpv4Hdr::LEN;
            let inner: Ipv4Hdr = load(context, quoted)?;
            addresses_ipv4(&inner, &mut packet.tuple);
            packet.protocol = inner.proto;
            quote(context, quoted + usize::from(inner.ihl()), packet)
        }
        _ => None,
    }
}

#[inline(always)]
fn parse_ipv6(context: &TcContext, offset: usize, packet: &mut Packet) -> Option<()> {
    let header: Ipv6Hdr = load(context, offset)?;
    packet.family = FAMILY_IPV6;
    packet.ttl = header.hop_limit;
    let (protocol, transport) = transport_ipv6(context, &header, offset)?;
    addresses_ipv6(&header, &mut packet.tuple);
    packet.protocol = protocol;
    if protocol != ICMP6 {
        return transport_header(context, transport, packet);
    }
    let kind: u8 = load(context, transport)?;
    if kind != ICMP6_UNREACHABLE {
        return None;
    }
    // ICMPv6 and ICMPv4 quote the packet at the same place.
    let quoted = transport + Icmpv4Hdr::LEN;
    let inner: Ipv6Hdr = load(context, quoted)?;
    let (protocol, transport) = transport_ipv6(context, &inner, quoted)?;
    addresses_ipv6(&inner, &mut packet.tuple);
    packet.protocol = protocol;
    quote(context, transport, packet)
}

/// The transport protocol behind the IPv6 header at `offset` and its extension headers, and the
/// offset of its header. `None`: a later fragment, which has none.
#[inline(always)]
fn transport_ipv6(context: &TcContext, header: &Ipv6Hdr, offset: usize) -> Option<(u8, usize)> {
    let mut protocol = header.next_hdr;
    let mut offset = offset + Ipv6Hdr::LEN;
    for _ in 0..EXTENSIONS_MAX {
        let [next, length, fragment_high, fragment_low]: [u8; 4] = match protocol {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => {
                load(context, offset)?
            }
            _ => break,
        };
        offset += match protocol {
            FRAGMENT => {
                // Thirteen bits of offset, then three of flags.
                if u16::from_be_bytes([fragment_high, fragment_low]) >> 3 != 0 {
                    return None;
                }
                8
            }
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        protocol = next;
    }
    Some((protocol, offset))
}

/// What is at `offset`, by its protocol.
#[inline(always)]
fn transport_header(context: &TcContext, offset: usize, packet: &mut Packet) -> Option<()> {
    match packet.protocol {
        TCP => segment(context, offset, packet),
        UDP => {
            packet.role = Role::Opening;
            packet.sequence = 0;
            ports(context, offset, packet)
        }
        SCTP => chunk(context, offset, packet),
        _ => None,
    }
}

/// The ports, which TCP, UDP and SCTP have at one place; of UDP only observed ones.
#[inline(always)]
fn ports(context: &TcContext, offset: usize, packet: &mut Packet) -> Option<()> {
    let [source, destination]: [[u8; 2]; 2] = load(context, offset)?;
    packet.tuple.source_port = u16::from_be_bytes(source);
    packet.tuple.destination_port = u16::from_be_bytes(destination);
    (packet.protocol != UDP || is_observed(packet.tuple.source_port, packet.tuple.destination_port))
        .then_some(())
}

/// The first chunk of an SCTP packet at `offset`. One that opens or accepts is the only one.
#[inline(always)]
fn chunk(context: &TcContext, offset: usize, packet: &mut Packet) -> Option<()> {
    ports(context, offset, packet)?;
    let [kind, flags]: [u8; 2] = load(context, offset + SCTP_CHUNK)?;
    // Whoever answers an INIT puts its initiate tag into the common header (RFC 9260, 8.5).
    let (role, tag) = match kind {
        INIT => (Role::Opening, SCTP_INITIATE_TAG),
        INIT_ACK => (Role::Accept, SCTP_TAG),
        ABORT if flags & ABORT_REFLECTS == 0 => (Role::Reset, SCTP_TAG),
        _ => return None,
    };
    packet.role = role;
    packet.sequence = u32::from_be_bytes(load(context, offset + tag)?);
    Some(())
}

/// A TCP segment at `offset`.
#[inline(always)]
fn segment(context: &TcContext, offset: usize, packet: &mut Packet) -> Option<()> {
    let header: TcpHdr = load(context, offset)?;
    let flags: u8 = load(context, offset + TCP_FLAGS)?;
    let sequence = u32::from_be_bytes(header.seq);
    let acknowledged = u32::from_be_bytes(header.ack_seq);
    (packet.role, packet.sequence) = tcp_role(flags, sequence, acknowledged)?;
    packet.tuple.source_port = u16::from_be_bytes(header.source);
    packet.tuple.destination_port = u16::from_be_bytes(header.dest);
    Some(())
}

/// The opening packet that an ICMP error quotes at `offset`: at least its first eight bytes, by
/// which an INIT is not told from another (RFC 1812, 4.3.2.3, wants more).
#[inline(always)]
fn quote(context: &TcContext, offset: usize, packet: &mut Packet) -> Option<()> {
    packet.sequence = match packet.protocol {
        TCP => u32::from_be_bytes(load(context, offset + TCP_SEQUENCE)?),
        UDP => 0,
        SCTP => {
            let kind: u8 = load(context, offset + SCTP_CHUNK)?;
            if kind != INIT {
                return None;
            }
            u32::from_be_bytes(load(context, offset + SCTP_INITIATE_TAG)?)
        }
        _ => return None,
    };
    packet.role = Role::IcmpError;
    ports(context, offset, packet)
}

#[inline(always)]
fn load<T>(context: &TcContext, offset: usize) -> Option<T> {
    let value = context.load(offset).ok();
    if value.is_none() {
        maps::count(Counter::Truncated);
    }
    value
}

#[inline(always)]
pub(crate) fn addresses_ipv4(header: &Ipv4Hdr, tuple: &mut Tuple) {
    tuple.source = widen(header.src_addr);
    tuple.destination = widen(header.dst_addr);
}

#[inline(always)]
pub(crate) fn addresses_ipv6(header: &Ipv6Hdr, tuple: &mut Tuple) {
    tuple.source = header.src_addr;
    tuple.destination = header.dst_addr;
}

/// An IPv4 address in the wire types' form.
#[inline(always)]
fn widen([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}
