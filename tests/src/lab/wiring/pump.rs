//! Two tun devices, and a thread that carries packets from one to the other.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::netns::Namespace;

/// No packet of a lab is longer.
const PACKET_MAX: usize = 1 << 16;

/// A pair of devices, until it is dropped.
#[derive(Debug)]
pub(super) struct Pump {
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Makes a device of each name in each namespace, and carries packets between them.
    pub(super) fn start(one: (&Namespace, &str), other: (&Namespace, &str)) -> Result<Self> {
        let devices = [device(one)?, device(other)?];
        let (stop, stopped) = UnixStream::pair().context("failed to make a pipe")?;
        let thread = thread::Builder::new()
            .name("pump".to_owned())
            .spawn(move || carry(&devices, &stopped))
            .context("failed to start a thread")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panicked)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panicked);
        }
    }
}

fn device((namespace, name): (&Namespace, &str)) -> Result<SyncDevice> {
    let made = namespace.run(|| {
        let device = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L3)
            .build_sync()?;
        device.set_nonblocking(true)?;
        io::Result::Ok(device)
    })?;
    made.with_context(|| format!("failed to make the tun device {name}"))
}

fn carry([one, other]: &[SyncDevice; 2], stopped: &UnixStream) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut watched = [
            watch(one.as_fd()),
            watch(other.as_fd()),
            watch(stopped.as_fd()),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => panic!("the pump failed to wait for packets: {errno}"),
        }
        if watched[2].any() == Some(true) {
            return;
        }
        for (from, to) in [(one, other), (other, one)] {
            while let Ok(length) = from.recv(&mut packet) {
                // A device that is down loses packets, as a cable does.
                let _lost = to.send(&packet[..length]);
            }
        }
    }
}
