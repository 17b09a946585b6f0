//! The first bytes of a connection, and whom they name.

use std::net::{IpAddr, Ipv4Addr};

use observer::payload::{BYTES_MAX, Reading, Reason, Stream, read, recover};

/// Where the proxies of these connections are.
fn is_proxy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

/// The first byte says where the others are cut in two; whatever they are, they say the same in
/// one piece and in two, the second of which may come first; and of a peer that is not trusted
/// nobody's address is taken.
pub fn run(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read(bytes);
    assert!(
        whole.is_some() || bytes.len() < BYTES_MAX,
        "it would be waited for more than is ever read"
    );
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let before = read(first);
    assert!(
        before.is_none() || before == whole,
        "more bytes told otherwise"
    );
    let mut stream = Stream::default();
    let told = stream.segment(0, first);
    assert_eq!(
        told.or_else(|| stream.segment(first.len(), second)),
        whole,
        "in order"
    );
    let mut stream = Stream::default();
    let early = stream.segment(first.len(), second);
    assert_eq!(
        early.or_else(|| stream.segment(0, first)),
        whole,
        "reversed"
    );
    if let Some(reading) = whole {
        let stranger = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 50));
        assert!(
            recover(&reading, stranger, |it| is_proxy(it).into()).is_err(),
            "a stranger is believed"
        );
    }
}

/// What a seed tells, of a trusted peer.
pub fn told(bytes: &[u8]) -> Option<Result<IpAddr, Reason>> {
    let reading: Reading = read(bytes.get(1..)?)?;
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    Some(recover(&reading, peer, |it| is_proxy(it).into()).map(|recovered| recovered.address))
}
