//! What runs in the controllers' pods: nginx or `HAProxy`, with the directives of their templates.

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
pub(super) struct Controller {
    which: Ingress,
    proxy: Proxy,
}

impl Controller {
    /// Starts one that leads to `to`.
    pub(super) fn start(
        which: Ingress,
        namespace: &Namespace,
        at: SocketAddr,
        to: SocketAddr,
    ) -> Result<Self> {
        let proxy = if which.is_haproxy() {
            haproxy(which, namespace, at, to)?
        } else {
            nginx(which, namespace, at, to)?
        };
        Ok(Self { which, proxy })
    }

    /// What it logged so far: what it answered. `HAProxy` logs those that a PROXY header names.
    pub(super) fn logged(&self) -> Result<Vec<Logged>> {
        Logged::by(&self.proxy)
    }

    /// How often it closed a connection from `peer` since it began with no PROXY header.
    pub(super) fn missed(&self, peer: IpAddr) -> Result<usize> {
        let (file, line) = if self.which.is_haproxy() {
            ("log", format!("missed [{peer}]"))
        } else {
            // It quotes what it got, line ends and all.
            let while_reading = "\" while reading PROXY protocol, client:";
            ("errors", format!("{while_reading} {peer},"))
        };
        let text = fs::read_to_string(self.proxy.path(file))?;
        Ok(text.matches(&line).count())
    }
}

/// ingress-nginx (`rootfs/etc/nginx/template/nginx.tmpl`).
fn nginx(which: Ingress, namespace: &Namespace, at: SocketAddr, to: SocketAddr) -> Result<Proxy> {
    let trusted = FRONT_NETWORKS.map(|network| format!("set_real_ip_from {network};\n"));
    let trusted = trusted.concat();
    // `{{ if $cfg.UseForwardedHeaders }}`, `{{ else if $cfg.UseProxyProtocol }}`.
    let (listen, real_ip) = match which {
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
        _ => ("", String::new()),
    };
    let http = format!(
        "log_format told 'told [$realip_remote_addr]:$realip_remote_port $status';\n\
         access_log DIRECTORY/log told;\n{real_ip}\
         server {{\nlisten {at} {listen};\nlocation / {{\nproxy_pass http://{to};\n\
         proxy_set_header X-Forwarded-For $remote_addr;\n}}\n}}\n"
    );
    Proxy::nginx(namespace, &[at], "DIRECTORY/errors info", &http)
}

/// `HAProxy` Ingress (`rootfs/etc/templates/haproxy/haproxy.tmpl`), but that each request has a
/// connection of its own.
fn haproxy(which: Ingress, namespace: &Namespace, at: SocketAddr, to: SocketAddr) -> Result<Proxy> {
    // A request that is none would be logged like this, too.
    let (accept, errors) = match which {
        Ingress::HaproxyProxied => ("accept-proxy", "error-log-format \"missed [%ci]\""),
        _ => ("", ""),
    };
    let proxies = format!(
        "listen inbound\n  bind {at} {accept}\n  mode http\n  \
         http-request del-header x-forwarded-for\n  option forwardfor\n  http-reuse never\n  \
         log-format \"told [%ci]:%cp %ST\"\n  {errors}\n  \
         server web {to}\n"
    );
    Proxy::haproxy(namespace, &[at], &proxies)
}
