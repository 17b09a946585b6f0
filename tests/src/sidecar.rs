//! Sidecars, live: what takes connections over within a pod's own network, where no node sees it.
//!
//! `HAProxy` plays the sidecar, behind the rules that a mesh makes in the pod's namespace. The oracle
//! is the application's own socket, and the sidecar's log, which says for whom each connection is.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    cluster::Cluster,
    ear::{Ear, Heard},
    fronts::{Logged, Proxy},
    kubeproxy::{
        Backend, Family, Mode, Settings,
        iptables::{self, Ruleset},
    },
    lab::{Lab, Options},
    netns::Namespace,
    observer_process::ObserverProcess,
    payload,
    small::{self, NODES, Pod},
};

const CLIENTS: [&str; 2] = ["203.0.113.50/24", "2001:db8:113::50/64"];
const NAT: &str = "nat";
/// How long the records of what is over may take.
const SOON: Duration = Duration::from_millis(500);

/// What is in a pod beside the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// Nothing.
    None,
    /// Istio's.
    Istio,
    /// The same, which leaves the application's port alone.
    IstioExcluded,
    /// Linkerd's.
    Linkerd,
}

/// A connection that came to an application.
#[derive(Clone, Debug)]
pub struct Came {
    /// By what.
    pub by: Sidecar,
    /// Whom the application's socket saw.
    pub peer: SocketAddr,
    /// Whom the pod got it from.
    pub pod_saw: SocketAddr,
    /// The pod's own address.
    pub pod: IpAddr,
}

/// A raised lab with a pod of each kind.
#[derive(Debug)]
pub struct Stage {
    // In the order of the dismantling.
    proxies: Vec<(Sidecar, Proxy)>,
    ears: Vec<(Sidecar, Ear)>,
    lab: Lab,
    objects: NamedTempFile,
    family: Family,
}

impl Sidecar {
    /// All.
    pub const ALL: [Self; 4] = [Self::None, Self::Istio, Self::IstioExcluded, Self::Linkerd];

    /// Whom an application sees, by whose documents.
    pub fn shows(self, came: &Came) -> IpAddr {
        match (self, came.pod) {
            (Self::None | Self::IstioExcluded, _) => came.pod_saw.ip(),
            // pilot/pkg/networking/util/util.go, `InboundPassthroughBindIpv4` and `…Ipv6`.
            (Self::Istio, IpAddr::V4(_)) => Ipv4Addr::new(127, 0, 0, 6).into(),
            (Self::Istio, IpAddr::V6(_)) => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into(),
            // Since 2.11 to the original destination (linkerd2#6495), which is the pod itself: the
            // kernel chooses that for the source.
            (Self::Linkerd, pod) => pod,
        }
    }

    fn pod(self) -> Pod {
        let (name, number) = match self {
            Self::None => ("bare", 5),
            Self::Istio => ("istio", 6),
            Self::IstioExcluded => ("excluded", 7),
            Self::Linkerd => ("linkerd", 8),
        };
        let mut containers = vec![json!({"name": "web", "image": "registry.example/web:1"})];
        match self {
            Self::None => {}
            Self::Istio | Self::IstioExcluded => containers.push(json!({
                "name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.27.0",
                "args": ["proxy", "sidecar"],
            })),
            Self::Linkerd => containers.push(json!({
                "name": "linkerd-proxy", "image": "cr.l5d.io/linkerd/proxy:edge-25.1.1",
            })),
        }
        let annotations = match self {
            Self::IstioExcluded => json!({"traffic.sidecar.istio.io/excludeInboundPorts": "8080"}),
            Self::None | Self::Istio | Self::Linkerd => json!({}),
        };
        Pod {
            namespace: "shop",
            name,
            node: 1,
            number,
            port: 8_080,
            node_port: 30_000 + u16::from(number),
            annotations,
            containers: containers.into(),
            load_balancer: None,
        }
    }

    /// Where it listens.
    fn port(self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Istio | Self::IstioExcluded => Some(15_006),
            Self::Linkerd => Some(4_143),
        }
    }

    /// What is redirected to it.
    fn rules(self) -> Ruleset {
        let mut rules = Ruleset::default();
        let (inbound, redirect, excluded) = match self {
            Self::None => return rules,
            // tools/istio-iptables/pkg/capture/run.go.
            Self::Istio => ("ISTIO_INBOUND", "ISTIO_IN_REDIRECT", "15008"),
            Self::IstioExcluded => ("ISTIO_INBOUND", "ISTIO_IN_REDIRECT", "8080"),
            // linkerd2-proxy-init, proxy-init/iptables/iptables.go.
            Self::Linkerd => ("PROXY_INIT_REDIRECT", "PROXY_INIT_TO_PROXY", "4190"),
        };
        let to = self.port().unwrap_or_default();
        rules.append(NAT, "PREROUTING", format!("-p tcp -j {inbound}"));
        rules.append(NAT, inbound, format!("-p tcp --dport {excluded} -j RETURN"));
        rules.append(NAT, inbound, format!("-p tcp -j {redirect}"));
        rules.append(NAT, redirect, format!("-p tcp -j REDIRECT --to-ports {to}"));
        rules
    }

    /// Starts it in front of the application.
    fn start(self, namespace: &Namespace, application: SocketAddr) -> Result<Option<Proxy>> {
        let Some(port) = self.port() else {
            return Ok(None);
        };
        let family = Family::of(application.ip());
        iptables::add(namespace, Backend::Nft, family, &self.rules())?;
        let (any, source) = match family {
            Family::V4 => (IpAddr::from(Ipv4Addr::UNSPECIFIED), "source 127.0.0.6"),
            Family::V6 => {
                // As `istio-iptables` does.
                namespace.ip("address add ::6/128 dev lo\n")?;
                (Ipv6Addr::UNSPECIFIED.into(), "source [::6]:0")
            }
        };
        let source = match self {
            Self::Istio | Self::IstioExcluded => source,
            Self::Linkerd | Self::None => "",
        };
        let bind = SocketAddr::new(any, port);
        let proxies = format!(
            "listen inbound\n  bind {bind}\n  mode tcp\n  {source}\n  server web {application}\n"
        );
        let at = SocketAddr::new(application.ip(), port);
        Proxy::haproxy(namespace, &[at], &proxies).map(Some)
    }
}

impl Stage {
    /// Raises it.
    pub fn raise(mode: Mode, family: Family) -> Result<Self> {
        let pods = Sidecar::ALL.map(Sidecar::pod);
        let list = small::list(&pods, Vec::new()).to_string();
        let mut objects = NamedTempFile::new().context("failed to make a temporary file")?;
        objects.write_all(list.as_bytes())?;
        let clients = CLIENTS.iter().map(|text| text.parse());
        let options = Options {
            client: clients.collect::<Result<_, _>>()?,
            kube_proxy: Settings::of(mode),
            ..Options::default()
        };
        let mut lab = Lab::raise(Cluster::parse(&list)?, options)?;
        let (mut proxies, mut ears) = (Vec::new(), Vec::new());
        for (sidecar, pod) in Sidecar::ALL.into_iter().zip(&pods) {
            lab.silence(pod.name);
            let raised = lab.pod(pod.name, pod.node_name());
            let namespace = &raised.context("the lab has no such pod")?.namespace;
            let application = SocketAddr::new(pod.address(family), pod.port);
            ears.push((sidecar, Ear::start(namespace, application)?));
            let proxy = sidecar.start(namespace, application)?;
            proxies.extend(proxy.map(|proxy| (sidecar, proxy)));
        }
        Ok(Self {
            proxies,
            ears,
            lab,
            objects,
            family,
        })
    }

    /// Observes the pods' node while a client connects so many times to each; what came, and what
    /// was told.
    pub fn observe(&self, connections: usize) -> Result<(Vec<Came>, Vec<Value>)> {
        let node = self.lab.node(NODES[0])?;
        let observer = ObserverProcess::start(node, self.objects.path(), &[])?;
        let address = small::node_address(1, self.family);
        for sidecar in Sidecar::ALL {
            let door = SocketAddr::new(address, sidecar.pod().node_port);
            for _ in 0..connections {
                self.ask(door).with_context(|| format!("{sidecar:?}"))?;
            }
        }
        observer.wait_for_records(connections * Sidecar::ALL.len())?;
        thread::sleep(SOON);
        let finished = observer.stop()?;
        ensure!(finished.status.success(), "{}", finished.stderr);
        Ok((self.came()?, finished.records))
    }

    fn ask(&self, door: SocketAddr) -> Result<()> {
        let mut clients = self.lab.client_addresses().into_iter();
        let client = clients.find(|client| self.family.holds(*client));
        let client = client.context("no client of the family")?;
        let mut stream = self
            .lab
            .client()
            .run(|| payload::connect_from(client, door))??;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")?;
        let mut answer = [0; 1_024];
        ensure!(stream.read(&mut answer)? > 0, "no answer");
        Ok(())
    }

    fn came(&self) -> Result<Vec<Came>> {
        let mut came = Vec::new();
        for (by, ear) in &self.ears {
            let mut proxies = self.proxies.iter();
            let proxy = proxies.find(|(of, _)| of == by);
            let logged = proxy.map_or(Ok(Vec::new()), |(_, proxy)| Logged::by(proxy))?;
            // Whoever only looks whether somebody listens says nothing.
            let heard = ear.heard().into_iter();
            for Heard { peer, .. } in heard.filter(|heard| !heard.bytes.is_empty()) {
                let mut logged = logged.iter();
                let taken_over = logged.find(|logged| logged.own_end() == Some(peer));
                came.push(Came {
                    by: *by,
                    peer,
                    pod_saw: taken_over.map_or(peer, |logged| logged.saw),
                    pod: by.pod().address(self.family),
                });
            }
        }
        Ok(came)
    }
}
