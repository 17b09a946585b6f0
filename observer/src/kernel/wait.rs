//! Waiting on the kernel's ring buffers.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets `inner` be waited on until it is readable. It must own its file descriptor, as the types
/// of aya do.
#[expect(
    unsafe_code,
    reason = "tokio asks for a promise about the file descriptor"
)]
pub fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `AsFd` shows that the descriptor is open as long as `inner`, which the AsyncFd then
    // owns; the map it stands for is the same for life.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }.map_err(io::Error::from)
}
