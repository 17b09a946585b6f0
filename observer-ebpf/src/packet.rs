//! Headers: which packets matter, and what they say, by direct packet access.
//!
//! [`passes`] decides, and costs a few nanoseconds; nearly every packet ends there. Of the few that
//! remain most have headers that are plain and linear, and are read here, too ([`handshake`],
//! [`plain`]); the rest by [`reader`].
//!
//! `LINK` is the length of the link header: [`ETHERNET`], or [`BARE`] for devices without one
//! (tunnels of IP in IP, WireGuard, tun), whose packets start at the IP header.
//!
//! [`reader`]: crate::reader

use core::mem::offset_of;

use aya_ebpf::programs::TcContext;
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};
use observer_ebpf::{
    FAMILY_IPV4, FAMILY_IPV6, Identity, KIND_FORWARD, KIND_ICMP_ERROR, KIND_REPLY, KIND_RESET,
    ROLE_ACCEPT, ROLE_ICMP_ERROR, ROLE_OPENING, ROLE_RESET, Tuple,
};

use crate::maps;

/// Offset of the sequence number in a TCP header (RFC 9293, 3.1).
pub(crate) const TCP_SEQUENCE: usize = 4;
/// Offset of the acknowledgement number in a TCP header (RFC 9293, 3.1).
const TCP_ACKNOWLEDGED: usize = 8;
/// Offset of the byte whose high four bits are the length of a TCP header (RFC 9293, 3.1), in
/// words of four bytes.
pub(crate) const TCP_DATA_OFFSET: usize = 12;
/// Offset of the flags in a TCP header (RFC 9293, 3.1).
pub(crate) const TCP_FLAGS: usize = 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Offset of the type of the first chunk of an SCTP packet; one of flags comes behind it
/// (RFC 9260, 3.1 and 3.2).
pub(crate) const SCTP_CHUNK: usize = 12;
pub(crate) const INIT: u8 = 1;
pub(crate) const INIT_ACK: u8 = 2;
pub(crate) const ABORT: u8 = 6;
pub(crate) const TCP: u8 = IpProto::Tcp as u8;
pub(crate) const UDP: u8 = IpProto::Udp as u8;
pub(crate) const SCTP: u8 = IpProto::Sctp as u8;
pub(crate) const ICMP: u8 = IpProto::Icmp as u8;
pub(crate) const ICMP6: u8 = IpProto::Ipv6Icmp as u8;

/// ICMP type 3: destination unreachable (RFC 792); a REJECT, or a router that has no way on.
pub(crate) const ICMP_UNREACHABLE: u8 = 3;
/// ICMPv6 type 1: destination unreachable (RFC 4443).
pub(crate) const ICMP6_UNREACHABLE: u8 = 1;

pub(crate) const IPV4: u16 = EtherType::Ipv4 as u16;
pub(crate) const IPV6: u16 = EtherType::Ipv6 as u16;

/// `vihl` of an IPv4 header without options.
const IPV4_PLAIN: u8 = 0x45;

/// The link header of Ethernet and of all that looks like it (veth, bridge, VXLAN). The outer VLAN
/// tag is not in it: the kernel keeps it in the skb's metadata at both hooks.
pub(crate) const ETHERNET: usize = EthHdr::LEN;
/// No link header.
pub(crate) const BARE: usize = 0;

// Extension headers of IPv6 (RFC 8200, 4; RFC 4302).
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
/// What a packet is to a connection.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// SYN, INIT, or the first datagram of a flow: opens it.
    Opening,
    /// SYN+ACK, INIT ACK, or the first reply datagram: accepts it.
    Accept,
    /// RST that answers a SYN, ABORT that answers an INIT.
    Reset,
    /// An ICMP error about an opening packet.
    IcmpError,
}

impl Role {
    /// As [`observer_ebpf::ArrivalKey::role`] has it.
    #[inline(always)]
    pub(crate) const fn key(self) -> u32 {
        match self {
            Self::Opening => ROLE_OPENING,
            Self::Accept => ROLE_ACCEPT,
            Self::Reset => ROLE_RESET,
            Self::IcmpError => ROLE_ICMP_ERROR,
        }
    }

    /// As [`observer_ebpf::Observation::kind`] has it.
    #[inline(always)]
    pub(crate) const fn kind(self) -> u8 {
        match self {
            Self::Opening => KIND_FORWARD,
            Self::Accept => KIND_REPLY,
            Self::Reset => KIND_RESET,
            Self::IcmpError => KIND_ICMP_ERROR,
        }
    }
}

/// An opening packet, or an answer to one. Lives in [`maps::Scratch`]: any bytes that the kernel
/// zeroed are a value.
pub(crate) struct Packet {
    /// A datagram does not say what it is to its flow; it is given as one that opens it.
    pub(crate) role: Role,
    /// That of the connection, also of an ICMP error about it.
    pub(crate) protocol: u8,
    pub(crate) family: u8,
    pub(crate) ttl: u8,
    /// The client's initial sequence number or initiate tag: a SYN's own, the one that an answer
    /// acknowledges, the one that an ICMP error quotes. Zero of UDP.
    pub(crate) sequence: u32,
    /// As in the header; of an ICMP error, that of the packet it is about.
    pub(crate) tuple: Tuple,
}

impl Packet {
    /// Whether it is of UDP, and no error about it.
    #[inline(always)]
    pub(crate) fn is_datagram(&self) -> bool {
        self.protocol == UDP && self.role != Role::IcmpError
    }

    /// Writes the connection of `original` that this packet opens or answers.
    #[inline(always)]
    pub(crate) fn identify(&self, original: &Tuple, identity: &mut Identity) {
        identity.original = *original;
        let protocol = u32::from_ne_bytes([self.family, self.protocol, 0, 0]);
        let words = core::ptr::from_mut(identity).cast::<u32>();
        // In words: what is written in bytes and read in words, as a map does, waits for the cache.
        // SAFETY: family, protocol and zone are a word, the sequence number is the next and the last
        // one, and the type is aligned for words.
        unsafe {
            let rest = words.add(offset_of!(Identity, family) / 4);
            rest.write(protocol);
            rest.add(1).write(self.sequence);
        }
    }
}

/// Whether nothing need be known of this packet. `false` only says that it must be looked at.
#[inline(always)]
pub(crate) fn passes<const LINK: usize>(context: &TcContext) -> bool {
    match ethertype(context) {
        IPV4 => {
            let Some(head) = linear::<LINK, Ipv4Hdr>(context) else {
                return false;
            };
            // SAFETY: `linear` proved that a whole IPv4 header lies at `head`; it has alignment 1.
            let header = unsafe { &*(head as *const Ipv4Hdr) };
            if header.vihl != IPV4_PLAIN {
                return !matches!(header.proto, TCP | UDP | SCTP | ICMP);
            }
            match header.proto {
                TCP => passes_tcp(head + Ipv4Hdr::LEN),
                UDP => passes_udp(head + Ipv4Hdr::LEN),
                SCTP => passes_sctp(head + Ipv4Hdr::LEN),
                ICMP => read(head + Ipv4Hdr::LEN) != ICMP_UNREACHABLE,
                _ => true,
            }
        }
        IPV6 => {
            let Some(head) = linear::<LINK, Ipv6Hdr>(context) else {
                return false;
            };
            // SAFETY: as above.
            let header = unsafe { &*(head as *const Ipv6Hdr) };
            match header.next_hdr {
                TCP => passes_tcp(head + Ipv6Hdr::LEN),
                UDP => passes_udp(head + Ipv6Hdr::LEN),
                SCTP => passes_sctp(head + Ipv6Hdr::LEN),
                ICMP6 => read(head + Ipv6Hdr::LEN) != ICMP6_UNREACHABLE,
                HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => false,
                _ => true,
            }
        }
        _ => true,
    }
}

/// What a TCP segment with plain and linear headers is to its connection, and the client's initial
/// sequence number.
#[inline(always)]
pub(crate) fn handshake<const LINK: usize>(context: &TcContext) -> Option<(Role, u32)> {
    let transport = if ethertype(context) == IPV4 {
        let head = linear::<LINK, Ipv4Hdr>(context)?;
        // SAFETY: `linear` proved that a whole IPv4 header lies at `head`; it has alignment 1.
        let header = unsafe { &*(head as *const Ipv4Hdr) };
        if header.vihl != IPV4_PLAIN || header.frag_offset() != 0 || header.proto != TCP {
            return None;
        }
        head + Ipv4Hdr::LEN
    } else {
        let head = linear::<LINK, Ipv6Hdr>(context)?;
        // SAFETY: as above.
        let header = unsafe { &*(head as *const Ipv6Hdr) };
        if header.next_hdr != TCP {
            return None;
        }
        head + Ipv6Hdr::LEN
    };
    segment_at(transport)
}

/// The source port of a TCP segment with data, as far as the linear part shows one; of what
/// [`passes`] let pass.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "20 bytes")]
pub(crate) fn source_port_of_data<const LINK: usize>(context: &TcContext) -> Option<u16> {
    let (transport, length) = match ethertype(context) {
        IPV4 => {
            let head = linear::<LINK, Ipv4Hdr>(context)?;
            // SAFETY: `linear` proved that a whole IPv4 header lies at `head`; it has alignment 1.
            let header = unsafe { &*(head as *const Ipv4Hdr) };
            if header.vihl != IPV4_PLAIN || header.proto != TCP {
                return None;
            }
            let length = u16::from_be_bytes(header.tot_len);
            // A packet too large for the field (BIG TCP) says zero.
            let length = length.wrapping_sub(Ipv4Hdr::LEN as u16);
            (head + Ipv4Hdr::LEN, length)
        }
        IPV6 => {
            let head = linear::<LINK, Ipv6Hdr>(context)?;
            // SAFETY: as above.
            let header = unsafe { &*(head as *const Ipv6Hdr) };
            if header.next_hdr != TCP {
                return None;
            }
            let length = u16::from_be_bytes(header.payload_len);
            (head + Ipv6Hdr::LEN, length)
        }
        _ => return None,
    };
    let header = read(transport + TCP_DATA_OFFSET) >> 4;
    (length != u16::from(header) * 4)
        .then(|| u16::from_be_bytes([read(transport), read(transport + 1)]))
}

/// Whether a segment neither opens a connection nor answers an opening packet, as [`tcp_role`] has
/// it.
#[inline(always)]
fn passes_tcp(header: usize) -> bool {
    let flags = read(header + TCP_FLAGS);
    if flags & (SYN | RST) == 0 {
        return true;
    }
    // Most resets end what was established.
    flags & SYN == 0 && (flags & ACK == 0 || word(header + TCP_SEQUENCE) != 0)
}

/// Whether neither port of a datagram is observed. What a later fragment has there are no ports;
/// [`crate::reader`] looks at that.
#[inline(always)]
fn passes_udp(header: usize) -> bool {
    !is_observed(half(header), half(header + 2))
}

/// A flow of an observed front door has its port on one end, and its endpoint's behind NAT.
#[inline(always)]
pub(crate) fn is_observed(source: u16, destination: u16) -> bool {
    maps::is_observed(destination) || maps::is_observed(source)
}

#[inline(always)]
fn passes_sctp(header: usize) -> bool {
    !matches!(read(header + SCTP_CHUNK), INIT | INIT_ACK | ABORT)
}

/// Where the IP header `H` lies, if it is linear, as far as the flags of a TCP header behind it.
#[inline(always)]
fn linear<const LINK: usize, H>(context: &TcContext) -> Option<usize> {
    let head = context.data() + LINK;
    let flags = head + size_of::<H>() + TCP_FLAGS;
    (flags < context.data_end()).then_some(head)
}

/// Two bytes of the linear part, host order.
#[inline(always)]
fn half(address: usize) -> u16 {
    // SAFETY: as in `read`. Every header begins at an even address, and has its fields at such.
    u16::from_be(unsafe { *(address as *const u16) })
}

/// Four bytes of the linear part, as [`half`].
#[inline(always)]
fn word(address: usize) -> u32 {
    u32::from(half(address)) << 16 | u32::from(half(address + 2))
}

/// One byte of the linear part.
#[inline(always)]
fn read(address: usize) -> u8 {
    // SAFETY: every caller passes an address no greater than the flags that `linear` proved.
    unsafe { *(address as *const u8) }
}

/// The protocol of the network header, host order; inside the outer VLAN tag, which the kernel
/// keeps in the skb's metadata at both hooks.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits in a field of 32")]
pub(crate) fn ethertype(context: &TcContext) -> u16 {
    // SAFETY: the context is a valid __sk_buff for the life of the program. The field holds a
    // __be16, and network-types' constants are in the order they have in memory.
    unsafe { (*context.skb.skb).protocol as u16 }
}

/// Reads the headers of what [`handshake`] told of, or of a datagram, if they are plain and linear.
#[inline(always)]
pub(crate) fn plain<const LINK: usize>(
    context: &TcContext,
    (role, sequence): (Role, u32),
    packet: &mut Packet,
) -> Option<()> {
    let (addresses, transport) = if ethertype(context) == IPV4 {
        let head = linear::<LINK, Ipv4Hdr>(context)?;
        // SAFETY: `linear` proved that a whole IPv4 header lies at `head`; it has alignment 1.
        let header = unsafe { &*(head as *const Ipv4Hdr) };
        packet.family = FAMILY_IPV4;
        packet.ttl = header.ttl;
        packet.protocol = header.proto;
        let source = raw(head + offset_of!(Ipv4Hdr, src_addr));
        let destination = raw(head + offset_of!(Ipv4Hdr, dst_addr));
        ([source, 0, 0, 0, destination, 0, 0, 0], head + Ipv4Hdr::LEN)
    } else {
        let head = linear::<LINK, Ipv6Hdr>(context)?;
        // SAFETY: as above.
        let header = unsafe { &*(head as *const Ipv6Hdr) };
        packet.family = FAMILY_IPV6;
        packet.ttl = header.hop_limit;
        packet.protocol = header.next_hdr;
        let source = head + offset_of!(Ipv6Hdr, src_addr);
        // The destination follows the source.
        let addresses = [0, 4, 8, 12, 16, 20, 24, 28].map(|at| raw(source + at));
        (addresses, head + Ipv6Hdr::LEN)
    };
    packet.role = role;
    packet.sequence = sequence;
    let ports = joined(half(transport), half(transport + 2));
    let words = (&raw mut packet.tuple).cast::<u32>();
    // In words, as in `identify`.
    // SAFETY: a tuple is two addresses of four words and a word of two ports, and aligned for words.
    unsafe {
        words.cast::<[u32; 8]>().write(addresses);
        words.add(offset_of!(Tuple, source_port) / 4).write(ports);
    }
    Some(())
}

/// The same of a datagram whose headers are plain and linear, as most are, without a call. `None`:
/// they are not, or it is none.
#[inline(always)]
pub(crate) fn datagram<const LINK: usize>(context: &TcContext, packet: &mut Packet) -> Option<()> {
    let is_plain = if ethertype(context) == IPV4 {
        let head = linear::<LINK, Ipv4Hdr>(context)?;
        // SAFETY: `linear` proved that a whole IPv4 header lies at `head`; it has alignment 1.
        let header = unsafe { &*(head as *const Ipv4Hdr) };
        header.vihl == IPV4_PLAIN && header.frag_offset() == 0 && header.proto == UDP
    } else {
        let head = linear::<LINK, Ipv6Hdr>(context)?;
        // SAFETY: as above.
        unsafe { &*(head as *const Ipv6Hdr) }.next_hdr == UDP
    };
    if !is_plain {
        return None;
    }
    plain::<LINK>(context, (Role::Opening, 0), packet)
}

/// Four bytes of the linear part, as they lie there.
#[inline(always)]
fn raw(address: usize) -> u32 {
    // SAFETY: as in `half`.
    let [low, high] = [address, address + 2].map(|at| unsafe { *(at as *const u16) });
    joined(low, high)
}

/// Two halves of a word, as they lie in memory.
#[inline(always)]
pub(crate) const fn joined(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// The same of a TCP header in the linear part.
#[inline(always)]
fn segment_at(header: usize) -> Option<(Role, u32)> {
    tcp_role(
        read(header + TCP_FLAGS),
        word(header + TCP_SEQUENCE),
        word(header + TCP_ACKNOWLEDGED),
    )
}

/// What a TCP segment is to its connection, and the client's initial sequence number. `None`: it
/// neither opens one nor answers an opening.
#[inline(always)]
pub(crate) fn tcp_role(flags: u8, sequence: u32, acknowledged: u32) -> Option<(Role, u32)> {
    let opened = acknowledged.wrapping_sub(1);
    match flags & (SYN | RST | ACK) {
        SYN => Some((Role::Opening, sequence)),
        flags if flags == SYN | ACK => Some((Role::Accept, opened)),
        // A RST that answers a SYN has sequence number 0 (RFC 9293, 3.5.2); one that ends an
        // established connection goes on from what was sent.
        flags if flags == RST | ACK && sequence == 0 => Some((Role::Reset, opened)),
        _ => None,
    }
}
