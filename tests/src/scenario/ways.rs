//! Who connects where: a scenario's connections, as the lab opens them.

use anyhow::{Context as _, Result};

use super::{
    At, Cast, Client, Connection, Door, NODES, Scenario,
    cluster::{HOST_PORTS, PORT, Place, TARGET_PORTS, client_pod},
    setup::IpMode,
};
use crate::{
    kubeproxy::{
        Family,
        doors::{FrontDoor, Kind},
    },
    lab::Lab,
    traffic::{self, Way},
};

impl Cast<'_> {
    /// The connections of all, of which a scenario's are found again by their Service's name; in
    /// rounds, since what is opened again must find what the first has left.
    pub fn rounds(&self, lab: &Lab, doors: &[FrontDoor]) -> Result<Vec<Vec<Way>>> {
        let mut rounds: Vec<Vec<Way>> = Vec::new();
        for (scenario, place) in self.places() {
            for family in &scenario.families {
                let way = way(lab, doors, scenario, &place, family.family())
                    .with_context(|| format!("the scenario {} in {family:?}", scenario.name))?;
                let times = usize::from(scenario.connection.times);
                if rounds.len() < times {
                    rounds.resize_with(times, Vec::new);
                }
                for round in rounds.iter_mut().take(times) {
                    round.push(way.clone());
                }
            }
        }
        Ok(rounds)
    }
}

fn way(
    lab: &Lab,
    doors: &[FrontDoor],
    scenario: &Scenario,
    place: &Place,
    family: Family,
) -> Result<Way> {
    let Connection {
        client,
        door,
        node,
        at,
        times: _,
    } = &scenario.connection;
    let kind = match door {
        Door::NodePort => Kind::NodePort,
        Door::LoadBalancer => Kind::LoadBalancer,
        Door::ExternalIP => Kind::ExternalIp,
        Door::ClusterIP => Kind::ClusterIp,
        Door::HostPort => Kind::HostPort,
        Door::Pod => Kind::Pod,
    };
    let is_past_the_service = !kind.is_of_service();
    let port = if kind == Kind::HostPort {
        place.port(HOST_PORTS)
    } else {
        place.port(TARGET_PORTS)
    };
    let first = scenario.endpoints.first();
    let of_service = || {
        doors.iter().filter(|door| {
            let is_meant = if is_past_the_service {
                let pod = first.and_then(|first| first.address(family));
                door.to.port() == port && (kind == Kind::HostPort || pod == Some(door.to.ip()))
            } else {
                door.service == scenario.name
            };
            is_meant && door.entry == *node && family.holds(door.to.ip())
        })
    };
    let mut of_kind = of_service()
        .filter(|door| door.kind == kind && door.is_loopback() == (*at == At::Localhost));
    let mut door = of_kind.nth(usize::from(*at == At::Secondary)).cloned();
    let is_a_proxy = scenario.service.ip_mode == Some(IpMode::Proxy);
    if door.is_none() && kind == Kind::LoadBalancer && is_a_proxy {
        // No door of the node's: but somebody may send there.
        let address = place
            .load_balancer()
            .into_iter()
            .find(|address| family.holds(*address));
        door = of_service()
            .next()
            .zip(address)
            .map(|(door, address)| FrontDoor {
                kind,
                to: (address, PORT).into(),
                ..door.clone()
            });
    }
    let other = NODES.into_iter().find(|other| *other != node);
    let of_pod = |node: &str, name: String| traffic::Client::Pod {
        name,
        node: node.to_owned(),
    };
    let client = match client {
        Client::External => {
            let mut addresses = lab.client_addresses().into_iter();
            let address = addresses.find(|address| family.holds(*address));
            traffic::Client::External(address.context("the client has no such address")?)
        }
        Client::Pod => of_pod(node, client_pod(node)),
        Client::PodOfTheOtherNode => {
            let other = other.context("there is no other node")?;
            of_pod(other, client_pod(other))
        }
        Client::Endpoint => of_pod(node, first.context("there is no endpoint")?.pod()),
        Client::Node => traffic::Client::Node(node.clone()),
    };
    // By this name its scenario is found again, also of what no Service has.
    let mut door = door.context("there is no such front door")?;
    door.service.clone_from(&scenario.name);
    Ok(Way { client, door })
}
