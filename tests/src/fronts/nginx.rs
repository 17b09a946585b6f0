//! nginx: as an application load balancer, and as a pod that speaks what only a web server speaks.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{Passage, Proxy, logged::end};
use crate::{command, netns::Namespace};

/// What nginx would keep where only a distribution's own may write.
const TEMPORARY: &str = "client_body_temp_path DIRECTORY/a;\nproxy_temp_path DIRECTORY/b;\n\
                         fastcgi_temp_path DIRECTORY/c;\nuwsgi_temp_path DIRECTORY/d;\n\
                         scgi_temp_path DIRECTORY/e;\n";
const PROGRAM: [&str; 4] = ["nginx", "-e", "stderr", "-c"];

/// nginx as an application load balancer: it appends to `X-Forwarded-For`.
pub fn nginx(namespace: &Namespace, at: SocketAddr, to: SocketAddr) -> Result<Proxy> {
    nginx_at(namespace, &[Passage { at, to }])
}

/// The same for several passages; each connects by the address that it listens at.
pub fn nginx_at(namespace: &Namespace, passages: &[Passage]) -> Result<Proxy> {
    let mut servers = String::new();
    for Passage { at, to } in passages {
        let source = at.ip();
        write!(
            servers,
            "server {{\nlisten {at};\nlocation / {{\nproxy_pass http://{to};\n\
             proxy_bind {source};\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n}}\n}}\n"
        )
        .context("writing to a string")?;
    }
    let listens: Vec<_> = passages.iter().map(|passage| passage.at).collect();
    let http = format!("access_log off;\n{servers}");
    Proxy::nginx(namespace, &listens, "stderr", &http)
}

impl Proxy {
    /// nginx with what its block `http` has, that logs its errors to `errors`; returns once it
    /// listens.
    pub fn nginx(
        namespace: &Namespace,
        listens: &[SocketAddr],
        errors: &str,
        http: &str,
    ) -> Result<Self> {
        Self::start(namespace, listens, &configuration(errors, http), &PROGRAM)
    }
}

fn configuration(errors: &str, http: &str) -> String {
    format!(
        "daemon off;\nmaster_process off;\npid DIRECTORY/pid;\nerror_log {errors};\n\
         events {{}}\nhttp {{\n{TEMPORARY}{http}}}\n"
    )
}

/// What a server understands beside HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TLS.
    Tls,
    /// TLS behind a PROXY header.
    ProxyTls,
    /// HTTP/2 from its first byte.
    Http2,
}

/// A request that a server got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it came in.
    pub at: SocketAddr,
    /// The peer of its socket.
    pub peer: SocketAddr,
    /// Whom the PROXY header names, else the last in `X-Forwarded-For`.
    pub client: Option<IpAddr>,
    /// What was asked for.
    pub path: String,
}

/// nginx as a pod that keeps what it got.
#[derive(Debug)]
pub struct Server {
    proxy: Proxy,
    certificate: PathBuf,
}

impl Server {
    /// Serves at each of these.
    pub fn start(namespace: &Namespace, listens: &[(Listen, SocketAddr)]) -> Result<Self> {
        let directory = TempDir::new().context("failed to make a temporary directory")?;
        let certificate = directory.path().join("certificate");
        command::run(
            Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"])
                .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
                .args(["-subj", "/CN=shop", "-addext", "subjectAltName=DNS:shop"])
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .arg("-keyout")
                .arg(directory.path().join("key"))
                .arg("-out")
                .arg(&certificate),
        )?;
        let mut http = "log_format told '[$server_addr]:$server_port [$remote_addr]:$remote_port \
                        $request_uri $proxy_protocol_addr $http_x_forwarded_for';\n\
                        access_log DIRECTORY/log told;\n\
                        ssl_protocols TLSv1.2 TLSv1.3;\n\
                        ssl_certificate DIRECTORY/certificate;\n\
                        ssl_certificate_key DIRECTORY/key;\n"
            .to_owned();
        for (listen, at) in listens {
            let how = match listen {
                Listen::Tls => "ssl",
                Listen::ProxyTls => "ssl proxy_protocol",
                Listen::Http2 => "http2",
            };
            write!(
                http,
                "server {{\nlisten {at} {how};\nreturn 200 'ok\\n';\n}}\n"
            )
            .context("writing to a string")?;
        }
        let at: Vec<_> = listens.iter().map(|(_, at)| *at).collect();
        let configuration = configuration("stderr", &http);
        let proxy = Proxy::start_in(directory, namespace, &at, &configuration, &PROGRAM)?;
        Ok(Self { proxy, certificate })
    }

    /// By what a client knows it.
    pub fn certificate(&self) -> &PathBuf {
        &self.certificate
    }

    /// What came so far.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let log = fs::read_to_string(self.proxy.path("log"))?;
        let parse = |line| Request::parse(line).with_context(|| format!("logged: {line}"));
        log.lines().map(parse).collect()
    }
}

impl Request {
    /// A line of the log.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let [at, peer, path, before, listed] = std::array::from_fn(|_| words.next());
        // nginx writes a dash for what there is not.
        let listed = listed?.rsplit(',').next()?.trim();
        let carried = before.filter(|before| *before != "-").unwrap_or(listed);
        Some(Self {
            at: end(at?)?,
            peer: end(peer?)?,
            client: carried.parse().ok(),
            path: path?.to_owned(),
        })
    }
}
