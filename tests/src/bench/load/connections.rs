//! New connections with NAT: from several client addresses, each opened, answered and closed. What
//! counts is what the pods' sockets accepted.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket,
        sockopt::{IpBindAddressNoPort, SendTimeout},
    },
    time::TimeVal,
};

use super::{Done, latencies};
use crate::{
    bench::{cluster::GATE, ground::Ground, place::Place},
    threads,
};

/// Longer than the second after which a SYN that was lost is repeated.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of a hundred connections so many may fail, without which the rate says nothing.
const FAILED_MAX: u64 = 1;

/// What one client did.
#[derive(Default)]
struct Client {
    took: Vec<Duration>,
    failed: u64,
}

/// Opens as many as it can, or at a steady rate.
pub(super) fn open(ground: &Ground, seconds: u32, rate: Option<u32>) -> Result<Done> {
    let clients = ground.clients();
    let number = u32::try_from(clients.len())?;
    let interval = rate.map(|rate| Duration::from_secs(1) * number / rate);
    let to = GATE.address();
    let before = ground.accepted.load(Ordering::Relaxed);
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds.into());
    let work = |client: (u32, Ipv4Addr)| -> Client {
        let (place, source) = client;
        let mut done = Client::default();
        for turn in 0.. {
            if let Some(interval) = interval {
                // Clients take turns.
                let due = start + interval * turn + interval * place / number;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            if Instant::now() >= until {
                break;
            }
            let begun = Instant::now();
            match once(source, to) {
                Ok(()) => done.took.push(begun.elapsed()),
                Err(_) => done.failed += 1,
            }
        }
        done
    };
    let all: Vec<Client> = ground.client().run(|| -> Result<_> {
        Place::Clients.stay()?;
        Ok(threads::at_once((0..).zip(clients), work))
    })??;
    let took = start.elapsed();
    let accepted = ground.accepted.load(Ordering::Relaxed) - before;
    let failed = all.iter().map(|client| client.failed).sum::<u64>();
    if failed * 100 > FAILED_MAX * accepted {
        bail!("{failed} connections failed, where {accepted} were accepted");
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let work = accepted as f64;
    Ok(Done {
        work,
        seconds: took.as_secs_f64(),
        failed,
        latency_us: latencies(all.into_iter().flat_map(|client| client.took).collect()),
    })
}

/// Opens one, waits until the other end has closed it, and closes it.
fn once(source: Ipv4Addr, to: SocketAddrV4) -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)
        .context("failed to open a socket")?;
    // The kernel then chooses a port that is free towards this destination alone.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    setsockopt(&socket, SendTimeout, &TimeVal::new(3, 0))?;
    bind(
        socket.as_raw_fd(),
        &SockaddrIn::from(SocketAddrV4::new(source, 0)),
    )?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 16];
    while stream.read(&mut answer)? > 0 {}
    Ok(())
}
