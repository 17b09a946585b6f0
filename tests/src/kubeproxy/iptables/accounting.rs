//! The two named counters that kube-proxy's rules refer to, and that must exist before them.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        socket,
    },
};

/// The counters of `-m nfacct` in kube-proxy's rules.
const COUNTERS: [&str; 2] = [
    "ct_state_invalid_dropped_pkts",
    "localhost_nps_accepted_pkts",
];

// linux/netfilter/nfnetlink.h, nfnetlink_acct.h and netlink.h.
const NFNL_SUBSYS_ACCT: u16 = 7;
const NFNL_MSG_ACCT_NEW: u16 = 0;
const NFACCT_NAME: u16 = 1;
const NLM_F_REQUEST_ACK_CREATE: u16 = 0x1 | 0x4 | 0x400;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;

/// Creates the counters in the namespace of the calling thread; those that exist stay.
pub(super) fn create() -> Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .context("failed to open a netfilter netlink socket")?;
    for name in COUNTERS {
        create_one(&socket, name)
            .with_context(|| format!("failed to create the netfilter counter {name}"))?;
    }
    Ok(())
}

fn create_one(socket: &OwnedFd, name: &str) -> Result<()> {
    sendto(
        socket.as_raw_fd(),
        &request(name)?,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let mut answer = [0; 512];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // A header and a negated errno: zero acknowledges.
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    ensure!(
        length >= HEADER_BYTES + 4 && kind == NLMSG_ERROR,
        "the kernel sent no acknowledgement"
    );
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    match Errno::from_raw(-code) {
        Errno::UnknownErrno if code == 0 => Ok(()),
        Errno::EEXIST | Errno::EBUSY => Ok(()),
        errno => Err(errno.into()),
    }
}

/// A netlink header, a netfilter header, and the name as the one attribute.
fn request(name: &str) -> Result<Vec<u8>> {
    let mut attribute = Vec::new();
    attribute.extend(u16::try_from(4 + name.len() + 1)?.to_ne_bytes());
    attribute.extend(NFACCT_NAME.to_ne_bytes());
    attribute.extend(name.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let netfilter_header = [0; 4];
    let length = HEADER_BYTES + netfilter_header.len() + attribute.len();

    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length)?.to_ne_bytes());
    message.extend((NFNL_SUBSYS_ACCT << 8 | NFNL_MSG_ACCT_NEW).to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK_CREATE.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(netfilter_header);
    message.extend(attribute);
    Ok(message)
}
