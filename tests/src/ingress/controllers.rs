//! What runs in the pods of ingress-nginx: nginx, with the directives of its template.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;

use super::{FRONT_NETWORKS, rows::Ingress};
use crate::{
    fronts::{Logged, Proxy},
    netns::Namespace,
};

/// A controller at work.
#[derive(Debug)]
pub(super) struct Controller(Proxy);

impl Controller {
    /// Starts one that leads to `to`.
    pub(super) fn start(
        which: Ingress,
        namespace: &Namespace,
        at: SocketAddr,
        to: SocketAddr,
    ) -> Result<Self> {
        let trusted: String = FRONT_NETWORKS
            .iter()
            .map(|network| format!("set_real_ip_from {network};\n"))
            .collect();
        // `{{ if $cfg.UseForwardedHeaders }}`, `{{ else if $cfg.UseProxyProtocol }}`.
        let (listen, real_ip) = match which {
            Ingress::Plain => ("", String::new()),
            Ingress::Proxied => (
                "proxy_protocol",
                "real_ip_header proxy_protocol;\nset_real_ip_from 0.0.0.0/0;\n\
                 set_real_ip_from ::/0;\n"
                    .to_owned(),
            ),
            Ingress::Forwarded => (
                "",
                format!("real_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n{trusted}"),
            ),
        };
        let http = format!(
            "log_format told 'told [$realip_remote_addr]:$realip_remote_port $status';\n\
             access_log DIRECTORY/log told;\n{real_ip}\
             server {{\nlisten {at} {listen};\nlocation / {{\nproxy_pass http://{to};\n\
             proxy_set_header X-Forwarded-For $remote_addr;\n}}\n}}\n"
        );
        Proxy::nginx(namespace, &[at], "DIRECTORY/errors info", &http).map(Self)
    }

    /// What it logged so far: what it answered.
    pub(super) fn logged(&self) -> Result<Vec<Logged>> {
        Logged::by(&self.0)
    }

    /// How often it closed a connection from `peer` since it began with no PROXY header.
    pub(super) fn missed(&self, peer: IpAddr) -> Result<usize> {
        let errors = fs::read_to_string(self.0.path("errors"))?;
        // It quotes what it got, line ends and all.
        let missed = format!("\" while reading PROXY protocol, client: {peer},");
        Ok(errors.matches(&missed).count())
    }
}
