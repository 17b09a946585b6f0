//! Word that interfaces, addresses or routes have changed.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

// enum rtnetlink_groups, include/uapi/linux/rtnetlink.h
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// What is longer is cut: nobody reads it.
const NOTIFICATION_BYTES: usize = 256;

/// Tells that something changed, not what: whoever asks looks at everything again. So nothing is
/// kept here, and a notification that the kernel had no room for is as good as one that came.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
}

impl Watch {
    /// Listens in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV6_ROUTE,
        ] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Whether anything has changed since this was last asked. Does not wait.
    pub fn changed(&self) -> bool {
        let mut notification = Vec::with_capacity(NOTIFICATION_BYTES);
        let mut changed = false;
        loop {
            notification.clear();
            match self.socket.recv(&mut notification, 0).map_err(|error| {
                error
                    .raw_os_error()
                    .map_or(Errno::UnknownErrno, Errno::from_raw)
            }) {
                Ok(_) | Err(Errno::ENOBUFS) => changed = true,
                Err(_nothing_more) => return changed,
            }
        }
    }
}
