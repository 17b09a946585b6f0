//! What runs on the node: nginx and `HAProxy`, each in every way in which it tells whom it speaks for.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;

use super::{Kind, PORT};
use crate::{fronts::Proxy, netns::Namespace};

pub(super) fn nginx(namespace: &Namespace, address: IpAddr, to: SocketAddr) -> Result<Proxy> {
    // RFC 7239, 6: IPv6 in brackets.
    let forwarded = if address.is_ipv4() {
        "for=\\\"$remote_addr:$remote_port\\\""
    } else {
        "for=\\\"[$remote_addr]:$remote_port\\\""
    };
    let mut servers = String::new();
    for (kind, header) in [
        (
            Kind::NginxForwardedFor,
            "X-Forwarded-For $proxy_add_x_forwarded_for".to_owned(),
        ),
        (Kind::NginxForwarded, format!("Forwarded \"{forwarded}\"")),
    ] {
        let at = SocketAddr::new(address, PORT + kind.number());
        write!(
            servers,
            "server {{\nlisten {at};\nlocation / {{\nproxy_pass http://{to};\n\
             proxy_set_header {header};\n}}\n}}\n"
        )?;
    }
    let http = format!(
        "log_format told 'told [$remote_addr]:$remote_port $request_uri';\n\
         access_log DIRECTORY/log told;\n{servers}"
    );
    let at = SocketAddr::new(address, PORT);
    Proxy::nginx(namespace, &[at], "stderr", &http)
}

pub(super) fn haproxy(namespace: &Namespace, address: IpAddr, to: SocketAddr) -> Result<Proxy> {
    let mut proxies = String::new();
    let kinds = [
        (
            Kind::HaproxyForwardedFor,
            "mode http\n  option forwardfor\n  option http-server-close",
            "",
        ),
        (Kind::HaproxySendProxy, "mode tcp", "send-proxy"),
        (Kind::HaproxySendProxyV2, "mode tcp", "send-proxy-v2"),
    ];
    for (kind, proxy, server) in kinds {
        let at = SocketAddr::new(address, PORT + kind.number());
        write!(
            proxies,
            "listen {kind:?}\n  bind {at}\n  {proxy}\n  server service {to} {server}\n"
        )?;
    }
    let at = SocketAddr::new(address, PORT + Kind::HaproxyForwardedFor.number());
    Proxy::haproxy(namespace, &[at], &proxies)
}
