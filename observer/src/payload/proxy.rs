//! The PROXY protocol, both versions (`HAProxy`, `doc/proxy-protocol.txt`).

use std::net::SocketAddr;

use crc::{CRC_32_ISCSI, Crc};
use ppp::{v1, v2};

use super::{Carrier, Chain, Reading, Reason};

/// What version 1 begins with.
pub(super) const PREFIX_1: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end (2.1).
const LINE_MAX: usize = 107;

/// Bytes of version 2 before the addresses, of which the last two say how many follow (2.2).
const FIXED: usize = 16;
/// `PP2_TYPE_CRC32C`: a checksum of the whole header, itself taken as zero (2.2.3).
const TYPE_CRC32C: u8 = 0x03;
/// That is its checksum's polynomial, of which there are several names.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A line of version 1; `None`: it has not ended.
pub(super) fn version_1(bytes: &[u8]) -> Option<Reading> {
    let start = bytes.get(..LINE_MAX).unwrap_or(bytes);
    let Some(end) = start.windows(2).position(|end| end == b"\r\n") else {
        let is_over = start.len() == LINE_MAX;
        return is_over.then_some(Reading::Nothing(Reason::Unrecognised));
    };
    let line = &start[..end + 2];
    // Given whole lines only: of a part it may say that it is wrong.
    let addresses = v1::Header::try_from(line).map(|header| header.addresses);
    Some(match addresses {
        Ok(v1::Addresses::Tcp4(addresses)) => {
            let (from, to) = (addresses.source_address, addresses.destination_address);
            found(
                Carrier::ProxyV1,
                (from, addresses.source_port).into(),
                (to, addresses.destination_port).into(),
            )
        }
        Ok(v1::Addresses::Tcp6(addresses)) => {
            let (from, to) = (addresses.source_address, addresses.destination_address);
            found(
                Carrier::ProxyV1,
                (from, addresses.source_port).into(),
                (to, addresses.destination_port).into(),
            )
        }
        Ok(v1::Addresses::Unknown) => Reading::Nothing(Reason::Unspecified),
        Err(_) => Reading::Nothing(Reason::Unrecognised),
    })
}

/// A header of version 2; `None`: it has not ended.
pub(super) fn version_2(bytes: &[u8]) -> Option<Reading> {
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => return None,
        Err(_) => return Some(Reading::Nothing(Reason::Unrecognised)),
    };
    Some(match is_sound(&header) {
        Ok(()) => addressed(&header),
        Err(reason) => Reading::Nothing(reason),
    })
}

fn addressed(header: &v2::Header) -> Reading {
    if header.command == v2::Command::Local {
        return Reading::Nothing(Reason::Local);
    }
    match (header.addresses, header.protocol) {
        (v2::Addresses::IPv4(addresses), v2::Protocol::Stream) => {
            let (from, to) = (addresses.source_address, addresses.destination_address);
            found(
                Carrier::ProxyV2,
                (from, addresses.source_port).into(),
                (to, addresses.destination_port).into(),
            )
        }
        (v2::Addresses::IPv6(addresses), v2::Protocol::Stream) => {
            let (from, to) = (addresses.source_address, addresses.destination_address);
            found(
                Carrier::ProxyV2,
                (from, addresses.source_port).into(),
                (to, addresses.destination_port).into(),
            )
        }
        (v2::Addresses::Unix(_), _) => Reading::Nothing(Reason::Unix),
        // Of something else than TCP, which this is.
        _ => Reading::Nothing(Reason::Unspecified),
    }
}

/// Whether what follows the addresses fills the header, and its checksum is right, if it has one.
fn is_sound(header: &v2::Header) -> Result<(), Reason> {
    // Where no address is, everything may be.
    if matches!(header.addresses, v2::Addresses::Unspecified) {
        return Ok(());
    }
    let mut at = FIXED + header.address_bytes().len();
    for item in header.tlvs() {
        let item = item.map_err(|_broken| Reason::Unrecognised)?;
        let value = at + 3;
        if item.kind == TYPE_CRC32C && !is_right(header.as_bytes(), value, &item.value) {
            return Err(Reason::BadChecksum);
        }
        at = value + item.value.len();
    }
    Ok(())
}

/// Whether `value`, which is at `at`, is the checksum of a header.
fn is_right(header: &[u8], at: usize, value: &[u8]) -> bool {
    let (Ok(said), Some((before, rest))) =
        (<[u8; 4]>::try_from(value), header.split_at_checked(at))
    else {
        return false;
    };
    let Some(after) = rest.get(said.len()..) else {
        return false;
    };
    let mut digest = CRC32C.digest();
    digest.update(before);
    digest.update(&[0; 4]);
    digest.update(after);
    digest.finalize() == u32::from_be_bytes(said)
}

fn found(carrier: Carrier, client: SocketAddr, to: SocketAddr) -> Reading {
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    Reading::Found(vec![Chain {
        carrier,
        hops: vec![Some(client.ip().to_canonical())],
        port: Some(client.port()),
        to: Some(canonical(to)),
    }])
}
