//! Scenarios that cannot be, refused with the reason.

use anyhow::{Result, ensure};

use super::{
    Answer, At, Client, Door, NODES, Outcome, Proxy, Scenario, SourceIp, setup::ServiceType,
};
use crate::protocol::Protocol;

impl Scenario {
    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<()> {
        let is_label =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            self.name.bytes().all(is_label) && (1..=58).contains(&self.name.len()),
            "its name is that of a Service: up to 58 small letters, digits and dashes"
        );
        for (field, is_empty) in [
            ("modes", self.modes.is_empty()),
            ("families", self.families.is_empty()),
            ("says", self.says.is_empty()),
            ("source", self.source.is_empty()),
        ] {
            ensure!(!is_empty, "{field} is empty");
        }
        let nodes = self.endpoints.iter().map(|endpoint| &endpoint.node);
        for node in nodes.chain([&self.connection.node]) {
            ensure!(
                NODES.contains(&&**node),
                "there is no node {node:?}; there are {}",
                NODES.join(" and ")
            );
        }
        for endpoint in &self.endpoints {
            ensure!(
                (1..=2).contains(&endpoint.replica),
                "replica is {}; a node has two pods that serve: 1 and 2",
                endpoint.replica
            );
        }
        self.check_door()?;
        self.check_expectation()
    }

    fn check_door(&self) -> Result<()> {
        let Self {
            service,
            connection,
            ..
        } = self;
        let has_door = match connection.door {
            Door::NodePort => service.has_node_port(),
            Door::LoadBalancer => service.type_ == ServiceType::LoadBalancer,
            Door::ExternalIP => service.external_ips,
            Door::ClusterIP => true,
            Door::HostPort => {
                service.relayed || self.endpoints.first().is_some_and(|one| one.host_port)
            }
            Door::Pod => self.endpoints.first().is_some_and(|one| !one.host_network),
        };
        ensure!(
            has_door,
            "connection.door is {:?}, which a Service of type {:?} that is set up so does not have",
            connection.door,
            service.type_
        );
        ensure!(
            service.external_traffic_policy.is_none() || service.is_external(),
            "service.externalTrafficPolicy is for Services with a node port, a load balancer or \
             external IPs"
        );
        ensure!(
            connection.at == At::Primary || connection.door == Door::NodePort,
            "connection.at is for the door NodePort: another has an address of its own"
        );
        ensure!(
            connection.at != At::Localhost || connection.client == Client::Node,
            "connection.at is localhost, where only the client node can come"
        );
        ensure!(
            connection.client != Client::Endpoint
                || self.endpoints.first().is_some_and(|first| {
                    !first.host_network && (first.node == connection.node)
                }),
            "connection.client is endpoint: the first endpoint must be a pod of connection.node"
        );
        ensure!(
            self.change.is_none() || (self.protocol == Protocol::Udp && service.is_external()),
            "change is for UDP, whose flows outlive it, and for Services with a policy for clients \
             outside"
        );
        ensure!(
            self.change.is_none()
                || (connection.door == Door::NodePort && !self.modes.contains(&Proxy::Ipvs)),
            "change goes with the door NodePort, and not with mode ipvs, whose rules are made once"
        );
        ensure!(
            self.beyond.is_some() == (service.relayed && connection.door == Door::HostPort),
            "beyond says what the pod of servicelb does, and goes with its host port alone"
        );
        ensure!(
            self.protocol == Protocol::Tcp || !self.modes.contains(&Proxy::Ipvs),
            "mode ipvs is played by TCP alone: say in which other modes"
        );
        ensure!(
            connection.times > 0,
            "connection.times is 0: nothing would be tried"
        );
        Ok(())
    }

    fn check_expectation(&self) -> Result<()> {
        let Answer {
            reported,
            source_ip,
            source_seen,
            by: _,
            cause,
            outcome,
            outcome_cause,
            extra_hops,
        } = &self.expect;
        let answered = *outcome == Outcome::Answered;
        let has_source = *source_ip != SourceIp::Unknown;
        // What a backend got and nobody heard of has a source all the same.
        let may_have_source = answered || *outcome == Outcome::Unanswered;
        ensure!(
            !reported || (has_source || !answered) && (may_have_source || !has_source),
            "expect.outcome is {outcome}, expect.source_ip is {source_ip}: what is answered has a \
             source that is preserved or lost, and what reaches nobody has none"
        );
        ensure!(
            cause.is_some() == (*source_ip == SourceIp::Lost),
            "expect.cause says why the source is lost: it goes with source_ip lost, and with no other"
        );
        ensure!(
            outcome_cause.is_none() || !answered,
            "expect.outcome_cause says why there is no answer, and there is one"
        );
        ensure!(
            has_source == source_seen.is_some() && has_source == extra_hops.is_some(),
            "expect.source_seen and expect.extra_hops go with a source_ip that is preserved or lost, \
             and with no other"
        );
        Ok(())
    }
}
