//! Which connections are asked for, and which make the command fail.

use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::Record;
use crate::cluster::ServicePort;
use crate::verdict::{CauseCode, Outcome, SourceIp};

/// The heading of the options that choose connections.
pub const FILTERS: &str = "Which connections";

/// A Service as the command line names it; with a port, as `shop/web:http`, one port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name of one of its ports.
    pub port: Option<String>,
}

/// Addresses of clients: a network, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients(IpNet);

/// The filters. A connection is printed if all let it pass.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only connections to this Service, or to this port of it: `shop/web`, `shop/web:http`.
    /// Needs the cluster's objects.
    #[arg(value_name = "NAMESPACE/SERVICE")]
    pub service: Option<ServiceName>,
    /// Only connections whose client's address was lost.
    #[arg(long, help_heading = FILTERS)]
    pub lost: bool,
    /// Only connections from this network or address, or for it behind a proxy (--payload); may be
    /// repeated.
    #[arg(long = "client", value_name = "CIDR", help_heading = FILTERS)]
    pub clients: Vec<Clients>,
    /// Only connections that came out otherwise than predicted.
    #[arg(long, help_heading = FILTERS)]
    pub unexpected: bool,
}

/// What makes a run fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// A client's address was lost; not of a pod that reached itself, or of a node's own
    /// connection, which no setting spares.
    Lost,
    /// A connection came out otherwise than predicted.
    Unexpected,
    /// A connection was dropped.
    Dropped,
}

impl Filter {
    /// Whether every connection is.
    pub fn passes_all(&self) -> bool {
        let Self {
            service,
            lost,
            clients,
            unexpected,
        } = self;
        service.is_none() && !lost && clients.is_empty() && !unexpected
    }

    /// Whether a connection is asked for.
    pub fn passes(&self, record: &Record) -> bool {
        self.passes_unpredicted(record) && (!self.unexpected || FailOn::Unexpected.is_met(record))
    }

    /// Whether it is asked for but for its prediction.
    pub fn passes_unpredicted(&self, record: &Record) -> bool {
        let Self {
            service,
            lost,
            clients,
            unexpected: _,
        } = self;
        let of_service = service.as_ref().is_none_or(|service| service.is_of(record));
        let addresses = [Some(record.client.ip), record.client.recovered];
        let of_clients = clients.is_empty()
            || clients.iter().any(|Clients(network)| {
                let mut addresses = addresses.iter().flatten();
                addresses.any(|address| network.contains(address))
            });
        of_service && of_clients && (!lost || record.source_ip == SourceIp::Lost)
    }

    /// Whether it takes a prediction to pass.
    pub fn asks_for_predictions(&self) -> bool {
        self.unexpected
    }
}

impl FailOn {
    /// Whether a connection is one to fail on.
    pub fn is_met(self, record: &Record) -> bool {
        match self {
            Self::Lost => record.source_ip == SourceIp::Lost && !is_always_masqueraded(record),
            Self::Unexpected => record.as_expected == Some(false),
            Self::Dropped => record.outcome == Outcome::Dropped,
        }
    }
}

/// Whether the address was lost only as it must be, or replies would not find their way back.
fn is_always_masqueraded(record: &Record) -> bool {
    let stages = record.stages();
    let is_always =
        |code: CauseCode| matches!(code, CauseCode::Hairpin | CauseCode::NodeLocalClient);
    !stages.is_empty() && stages.iter().all(|loss| is_always(loss.cause.code))
}

impl ServiceName {
    /// Whether it names this port of a Service.
    pub fn names(&self, served: &ServicePort) -> bool {
        let Self {
            namespace,
            name,
            port,
        } = self;
        *served.service.namespace == **namespace
            && *served.service.name == **name
            && port
                .as_ref()
                .is_none_or(|port| served.name.as_deref() == Some(port))
    }

    fn is_of(&self, record: &Record) -> bool {
        let Self {
            namespace,
            name,
            port,
        } = self;
        record.service.as_ref().is_some_and(|service| {
            *service.namespace == **namespace
                && *service.name == **name
                && port
                    .as_ref()
                    .is_none_or(|port| service.port.as_deref() == Some(port))
        })
    }
}

impl FromStr for ServiceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, rest) = text
            .split_once('/')
            .ok_or("expected NAMESPACE/SERVICE, as in shop/web")?;
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (rest, None),
        };
        if namespace.is_empty() || name.is_empty() || port.is_some_and(str::is_empty) {
            return Err("expected NAMESPACE/SERVICE, as in shop/web; one of them is empty");
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port: port.map(str::to_owned),
        })
    }
}

impl FromStr for Clients {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse().or_else(|_no_network: ipnet::AddrParseError| {
            text.parse()
                .map(|address: IpAddr| IpNet::from(address.to_canonical()))
        });
        network
            .map(Self)
            .map_err(|_neither| "expected a network or an address, as in 203.0.113.0/24")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_service_is_named_as_records_show_it() {
        let parse = |text: &str| text.parse::<ServiceName>();
        let web = ServiceName {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            port: None,
        };
        assert_eq!(parse("shop/web"), Ok(web.clone()));
        let port = Some("http".to_owned());
        assert_eq!(parse("shop/web:http"), Ok(ServiceName { port, ..web }));
    }

    #[rstest]
    #[case("web")]
    #[case("")]
    #[case("/web")]
    #[case("shop/")]
    #[case("shop/web:")]
    fn what_names_no_service_says_how_one_is_named(#[case] text: &str) {
        let error = text.parse::<ServiceName>().expect_err("no Service");
        assert!(error.contains("NAMESPACE/SERVICE"), "{error}");
    }

    #[rstest]
    #[case("203.0.113.0/24", "203.0.113.50", true)]
    #[case("203.0.113.50", "203.0.113.50", true)]
    #[case("203.0.113.51", "203.0.113.50", false)]
    #[case("2001:db8::/32", "2001:db8::1", true)]
    #[case("0.0.0.0/0", "2001:db8::1", false)]
    fn clients_are_a_network_or_an_address(
        #[case] clients: Clients,
        #[case] client: IpAddr,
        #[case] is_one: bool,
    ) {
        let Clients(network) = clients;
        assert_eq!(network.contains(&client), is_one);
    }

    #[test]
    fn a_client_behind_a_proxy_is_one_too() {
        let mut record = super::super::tests::whole();
        let filter = |network: &str| Filter {
            clients: vec![network.parse().expect("a network")],
            ..Filter::default()
        };
        record.client.recovered = Some("198.51.100.77".parse().expect("an address"));
        for (network, is_one) in [
            ("198.51.100.0/24", true),
            ("203.0.113.0/24", true),
            ("192.0.2.0/24", false),
        ] {
            assert_eq!(filter(network).passes(&record), is_one, "{network}");
        }
    }

    #[test]
    fn what_is_no_network_is_an_error() {
        for text in ["", "shop", "203.0.113.0/33", "203.0.113"] {
            assert!(text.parse::<Clients>().is_err(), "{text}");
        }
    }
}
