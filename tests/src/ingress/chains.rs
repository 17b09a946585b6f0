//! What stands in front: `HAProxy`, or one nginx behind the other.

use std::{fmt::Write as _, net::SocketAddr};

use anyhow::{Context as _, Result};

use super::rows::Front;
use crate::{
    fronts::{Haproxy, Passage, Proxy, haproxy},
    netns::Namespace,
};

/// Starts those in front, which listen at these ends, one behind the other, and lead to `to`.
pub(super) fn start(
    rows: &[(Front, Vec<SocketAddr>, SocketAddr)],
    namespace: &Namespace,
) -> Result<Vec<Proxy>> {
    let mut by_haproxy = Vec::new();
    let (mut listens, mut http) = (Vec::new(), "access_log off;\n".to_owned());
    for (front, ends, to) in rows {
        if let (Some(how), [at]) = (front.haproxy(), &ends[..]) {
            by_haproxy.push((how, Passage { at: *at, to: *to }));
            continue;
        }
        listens.extend(ends);
        let next = ends.iter().skip(1).chain([to]);
        for ((place, at), to) in (1..).zip(ends).zip(next) {
            let (real_ip, list) = front.adds(place);
            write!(
                http,
                "server {{\nlisten {at};\n{real_ip}location / {{\nproxy_pass http://{to};\n\
                 proxy_bind {};\nproxy_set_header X-Forwarded-For \"{list}\";\n}}\n}}\n",
                at.ip()
            )
            .context("writing to a string")?;
        }
    }
    Ok(vec![
        haproxy(namespace, &by_haproxy)?,
        Proxy::nginx(namespace, &listens, "stderr", &http)?,
    ])
}

impl Front {
    fn haproxy(self) -> Option<Haproxy> {
        match self {
            Self::Haproxy => Some(Haproxy::Plain),
            Self::HaproxyV1 => Some(Haproxy::SendProxy),
            Self::HaproxyV2 => Some(Haproxy::SendProxyV2),
            Self::ChecksLocal => Some(Haproxy::SendProxyV2Checked),
            Self::ChecksOfTcp => Some(Haproxy::PlainChecked),
            Self::Nobody
            | Self::Forger
            | Self::Nginx
            | Self::NginxTwo
            | Self::NginxTwice
            | Self::NginxRealip
            | Self::NginxRealipMended => None,
        }
    }

    /// What the nginx at this place of the way takes for the client, and how it lists it.
    fn adds(self, place: usize) -> (&'static str, &'static str) {
        const REALIP: &str = "set_real_ip_from 0.0.0.0/0;\nset_real_ip_from ::/0;\n\
                              real_ip_header X-Forwarded-For;\n";
        match (self, place) {
            (Self::NginxTwice, 2) => ("", "$proxy_add_x_forwarded_for, $remote_addr"),
            (Self::NginxRealip, 3) => (REALIP, "$proxy_add_x_forwarded_for"),
            (Self::NginxRealipMended, 3) => (REALIP, "$http_x_forwarded_for, $realip_remote_addr"),
            _ => ("", "$proxy_add_x_forwarded_for"),
        }
    }
}
