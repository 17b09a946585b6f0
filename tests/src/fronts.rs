//! What people put in front of a cluster, by the real programs: `HAProxy` and nginx.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    child::{ChildGuard, poll_until},
    netns::Namespace,
};

const READY: Duration = Duration::from_secs(10);

/// What nginx would keep where only a distribution's own may write.
const TEMPORARY: &str = "client_body_temp_path DIRECTORY/a;\nproxy_temp_path DIRECTORY/b;\n\
                         fastcgi_temp_path DIRECTORY/c;\nuwsgi_temp_path DIRECTORY/d;\n\
                         scgi_temp_path DIRECTORY/e;\n";

/// A proxy at work, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    _child: ChildGuard,
    _directory: TempDir,
}

/// How `HAProxy` hands a connection on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haproxy {
    /// As it is.
    Plain,
    /// Behind a PROXY header of version 1.
    SendProxy,
    /// Behind one of version 2.
    SendProxyV2,
    /// The same, with a checksum and more.
    SendProxyV2Checked,
    /// As HTTP, with `option forwardfor`.
    ForwardFor,
}

impl Haproxy {
    /// Every way.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::SendProxy,
        Self::SendProxyV2,
        Self::SendProxyV2Checked,
        Self::ForwardFor,
    ];

    /// From `at` to `to`, by the address of `at`.
    pub fn start(self, namespace: &Namespace, at: SocketAddr, to: SocketAddr) -> Result<Proxy> {
        let (mode, options) = match self {
            Self::Plain => ("tcp", ""),
            Self::SendProxy => ("tcp", "send-proxy"),
            Self::SendProxyV2 => ("tcp", "send-proxy-v2"),
            Self::SendProxyV2Checked => (
                "tcp",
                "send-proxy-v2 proxy-v2-options crc32c,unique-id check check-send-proxy inter 200",
            ),
            Self::ForwardFor => ("http", ""),
        };
        let (forward, unique_id) = match self {
            Self::ForwardFor => ("option forwardfor", ""),
            Self::SendProxyV2Checked => ("", "unique-id-format %[uuid()]"),
            Self::Plain | Self::SendProxy | Self::SendProxyV2 => ("", ""),
        };
        // Without its port an IPv6 address would be taken for one with.
        let source = SocketAddr::new(at.ip(), 0);
        let configuration = format!(
            "global\n  maxconn 200\n\
             defaults\n  mode {mode}\n  {forward}\n  timeout connect 2s\n  timeout client 9s\n  \
             timeout server 9s\n\
             frontend front\n  bind {at}\n  {unique_id}\n  default_backend back\n\
             backend back\n  source {source}\n  server pod {to} {options}\n"
        );
        start(namespace, at, &configuration, &["haproxy", "-db", "-f"])
    }
}

/// nginx as an application load balancer: it appends to `X-Forwarded-For`.
pub fn nginx(namespace: &Namespace, at: SocketAddr, to: SocketAddr) -> Result<Proxy> {
    let source = at.ip();
    let configuration = format!(
        "daemon off;\nmaster_process off;\npid DIRECTORY/pid;\nerror_log stderr;\n\
         events {{}}\nhttp {{\naccess_log off;\n{TEMPORARY}\
         server {{\nlisten {at};\nlocation / {{\nproxy_pass http://{to};\nproxy_bind {source};\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n}}\n}}\n}}\n"
    );
    start(
        namespace,
        at,
        &configuration,
        &["nginx", "-e", "stderr", "-c"],
    )
}

fn start(
    namespace: &Namespace,
    at: SocketAddr,
    configuration: &str,
    program: &[&str],
) -> Result<Proxy> {
    let directory = TempDir::new().context("failed to make a temporary directory")?;
    let file = directory.path().join("configuration");
    let path = directory.path().to_str().context("its path is no text")?;
    fs::write(&file, configuration.replace("DIRECTORY", path))?;
    let (program, arguments) = program.split_first().context("no program")?;
    let mut command = namespace.command(program);
    command
        .args(arguments)
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = command
        .spawn()
        .with_context(|| format!("failed to start {command:?}"))?;
    let child = ChildGuard::new(child);
    let is_there = || {
        let connected = namespace.run(|| TcpStream::connect_timeout(&at, READY));
        matches!(connected, Ok(Ok(_))).then_some(())
    };
    poll_until(READY, is_there)
        .with_context(|| format!("{command:?} does not listen at {at}:\n{configuration}"))?;
    Ok(Proxy {
        _child: child,
        _directory: directory,
    })
}
