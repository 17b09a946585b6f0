//! Datagrams through a node port with NAT, each sent back by a pod: a flow for each client, with a
//! window of datagrams under way.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Done, latencies};
use crate::{
    bench::{cluster::ECHO, ground::Ground, place::Place},
    threads,
};

/// Datagrams of a flow that are under way at once.
const WINDOW: u64 = 16;
/// After so long what is missing is lost, and the next window begins.
const LOST_AFTER: Duration = Duration::from_millis(100);
/// Bytes of data: as a DNS question has.
const DATA: usize = 64;

/// What one flow did.
#[derive(Default)]
struct Flow {
    came_back: u64,
    lost: u64,
    took: Vec<Duration>,
}

/// Sends as fast as what is sent comes back.
pub(super) fn exchange(ground: &Ground, seconds: u32) -> Result<Done> {
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds.into());
    let clients = ground.clients();
    let flows = ground.client().run(|| {
        Place::Clients.stay()?;
        let flows = threads::at_once(clients, |client| flow(client, until));
        flows.into_iter().collect::<Result<Vec<Flow>>>()
    })??;
    let took = start.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let work = flows.iter().map(|flow| flow.came_back).sum::<u64>() as f64;
    Ok(Done {
        work,
        seconds: took.as_secs_f64(),
        failed: flows.iter().map(|flow| flow.lost).sum(),
        latency_us: latencies(flows.into_iter().flat_map(|flow| flow.took).collect()),
    })
}

fn flow(client: Ipv4Addr, until: Instant) -> Result<Flow> {
    let socket = UdpSocket::bind((client, 0)).context("failed to open a socket")?;
    socket.connect(ECHO.address())?;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    let mut flow = Flow::default();
    let mut first = 0;
    while Instant::now() < until {
        let begun = Instant::now();
        let window = first..first + WINDOW;
        for number in window.clone() {
            let mut data = [0; DATA];
            data[..8].copy_from_slice(&number.to_be_bytes());
            socket.send(&data)?;
        }
        let mut missing = WINDOW;
        while missing > 0 {
            let mut number = [0; 8];
            match socket.recv(&mut number) {
                // One of a window that was given up is late, and was counted.
                Ok(_) if !window.contains(&u64::from_be_bytes(number)) => {}
                Ok(_) => missing -= 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("failed to receive"),
            }
        }
        flow.came_back += WINDOW - missing;
        flow.lost += missing;
        if missing == 0 {
            flow.took.push(begun.elapsed());
        }
        first += WINDOW;
    }
    Ok(flow)
}
