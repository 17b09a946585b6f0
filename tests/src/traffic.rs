//! Connections from the external client through front doors.

use std::{net::SocketAddr, panic, thread, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    client::{Answer, ConnectError, Failure, connect_from_here},
    doors::FrontDoor,
    lab::Lab,
};

/// How long a connection is tried. Longer than the second between a SYN and its first
/// repetition, since IPv6 takes only the second ICMP error for a refusal.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// A connection that was opened, and what became of it.
#[derive(Debug)]
pub struct Opened {
    /// Where it went.
    pub door: FrontDoor,
    /// The client's own end.
    pub client: SocketAddr,
    /// The pod's answer, or how it failed.
    pub result: Result<Answer, Failure>,
}

/// Opens a connection through each of `doors`, those by one node at a time, all at once.
pub fn open(lab: &Lab, doors: &[FrontDoor]) -> Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for node in lab.nodes() {
        let doors: Vec<&FrontDoor> = doors
            .iter()
            .filter(|door| door.entry == node.plan.name)
            .collect();
        for door in doors.iter().filter(|door| door.kind.is_routed()) {
            lab.route_vip(door.to.ip(), &door.entry)?;
        }
        opened.extend(lab.client().run(|| open_at_once(lab, &doors))??);
    }
    Ok(opened)
}

/// Threads that are started inside a namespace are inside, too.
fn open_at_once(lab: &Lab, doors: &[&FrontDoor]) -> Result<Vec<Opened>> {
    thread::scope(|scope| {
        let running: Vec<_> = doors
            .iter()
            .map(|door| scope.spawn(move || (*door, connect_from_here(door.to, CONNECT_TIMEOUT))))
            .collect();
        running
            .into_iter()
            .map(|thread| {
                let (door, result) = thread
                    .join()
                    .unwrap_or_else(|panicked| panic::resume_unwind(panicked));
                of(lab, door, result)
            })
            .collect()
    })
}

fn of(lab: &Lab, door: &FrontDoor, result: Result<Answer, ConnectError>) -> Result<Opened> {
    let (client, result) = match result {
        Ok(answer) => (answer.local, Ok(answer)),
        Err(ConnectError { local, failure }) => {
            let local = local
                .with_context(|| format!("no connection to {door} could be tried: {failure}"))?;
            // A socket that failed may have lost its address already, never its port.
            let ip = lab
                .client_address(door.to.ip())
                .filter(|_| local.ip().is_unspecified());
            (
                (ip.unwrap_or(local.ip()), local.port()).into(),
                Err(failure),
            )
        }
    };
    Ok(Opened {
        door: door.clone(),
        client,
        result,
    })
}
