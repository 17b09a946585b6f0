//! Why the kernel dropped an opening packet that waits for its egress: the raw tracepoint
//! `kfree_skb`, whose third argument is the reason since Linux 5.17.
//!
//! It fires in any context, also in the middle of a TC program, so it shares no scratch with those
//! and counts nothing: what it works on fits on the stack.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use observer_ebpf::{ArrivalKey, FAMILY_IPV4, FAMILY_IPV6, Identity, ROLE_OPENING, Tuple};

use crate::{
    conntrack, maps,
    packet::{SCTP, TCP, TCP_SEQUENCE, UDP},
    reader::{self, SCTP_INITIATE_TAG},
};

/// At every packet that the kernel drops.
#[raw_tracepoint(tracepoint = "kfree_skb")]
#[expect(clippy::needless_pass_by_value, reason = "as the macro calls it")]
fn observer_drop(context: RawTracePointContext) -> i32 {
    dropped(&context);
    0
}

/// `None` only ends early; nobody asks why.
#[inline(always)]
fn dropped(context: &RawTracePointContext) -> Option<()> {
    let layout = maps::drop_layout()?;
    let reason: u32 = context.arg(2);
    if reason == layout.not_specified || !maps::is_attended(maps::now_ns()) {
        return None;
    }
    let skb: u64 = context.arg(0);
    let head: u64 = read(skb + u64::from(layout.head))?;
    let offset: u16 = read(skb + u64::from(layout.network_header))?;
    let mut key = ArrivalKey {
        identity: Identity {
            original: Tuple {
                source: [0; 16],
                destination: [0; 16],
                source_port: 0,
                destination_port: 0,
            },
            family: 0,
            protocol: 0,
            zone: 0,
            sequence: 0,
        },
        role: ROLE_OPENING,
    };
    identify(head + u64::from(offset), &mut key.identity)?;
    // Behind a DNAT the header is no longer what arrived.
    conntrack::read_original(skb, &mut key.identity.original);
    if maps::waits(&key) {
        maps::note_drop(&key, reason);
    }
    Some(())
}

/// Reads the headers of the packet whose network header should be at `ip`. Of what is none, or lies
/// beyond the linear part, this makes a connection that nobody waits for.
#[inline(always)]
fn identify(ip: u64, identity: &mut Identity) -> Option<()> {
    let version: u8 = read(ip)?;
    let transport = match version >> 4 {
        4 => {
            let header: Ipv4Hdr = read(ip)?;
            reader::addresses_ipv4(&header, &mut identity.original);
            identity.family = FAMILY_IPV4;
            identity.protocol = header.proto;
            ip + u64::from(header.ihl())
        }
        6 => {
            let header: Ipv6Hdr = read(ip)?;
            reader::addresses_ipv6(&header, &mut identity.original);
            identity.family = FAMILY_IPV6;
            identity.protocol = header.next_hdr;
            ip + Ipv6Hdr::LEN as u64
        }
        _ => return None,
    };
    let sequence = match identity.protocol {
        TCP => Some(TCP_SEQUENCE),
        SCTP => Some(SCTP_INITIATE_TAG),
        UDP => None,
        _ => return None,
    };
    let [source, destination]: [[u8; 2]; 2] = read(transport)?;
    identity.original.source_port = u16::from_be_bytes(source);
    identity.original.destination_port = u16::from_be_bytes(destination);
    if let Some(offset) = sequence {
        identity.sequence = u32::from_be_bytes(read(transport + offset as u64)?);
    }
    Some(())
}

#[inline(always)]
fn read<T>(address: u64) -> Option<T> {
    // SAFETY: every `T` here is integers only; the helper checks the address and fails rather than
    // fault.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
