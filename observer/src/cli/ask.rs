//! Asking the kube-proxy of this node, which answers at its loopback address.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Once;
use std::time::{Duration, Instant};

use super::say;
use crate::cluster::{KubeProxy, configz};

/// Where kube-proxy serves its metrics by default (`metricsBindAddress`).
pub(super) const METRICS_ADDRESS: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10249));
/// It answers from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Many times a configuration and its headers.
const ANSWER_MAX: usize = 1 << 16;
/// A name that is never too long for a mode.
const MODE_MAX: usize = 32;

/// kube-proxy's configuration as it tells it itself, on this node. What is found is said once.
pub(super) fn served() -> Option<KubeProxy> {
    match configuration(METRICS_ADDRESS) {
        Ok(configuration) => {
            if configuration.is_some() {
                say_once(&format!(
                    "kube-proxy's configuration is the one that it serves at {METRICS_ADDRESS}"
                ));
            }
            configuration
        }
        Err(error) => {
            say_once(&format!(
                "warning: kube-proxy at {METRICS_ADDRESS}: {error}: its configuration is not taken \
                 into account"
            ));
            None
        }
    }
}

fn say_once(line: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| say(line));
}

/// Asks kube-proxy for its configuration. `None`: nobody answers there.
pub(super) fn configuration(address: SocketAddr) -> Result<Option<KubeProxy>, String> {
    let Ok(answer) = get(address, "/configz") else {
        return Ok(None);
    };
    let body = body(&answer).ok_or("it serves no configuration")?;
    // Not worth an error: what the configuration leaves open has a default.
    let mode = mode(address).ok();
    let configuration = configz::kube_proxy(body, mode.as_deref());
    configuration.map(Some).map_err(|error| error.to_string())
}

/// Asks kube-proxy for its mode.
pub(super) fn mode(address: SocketAddr) -> Result<String, String> {
    let answer = get(address, "/proxyMode")?;
    mode_in(&answer).ok_or_else(|| "its answer is no mode".to_owned())
}

/// By hand: a request on the loopback interface, of a server that is known, is less than the
/// smallest HTTP client. In HTTP/1.0 the body ends with the connection.
fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let answer = || {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while answer.len() < ANSWER_MAX {
            // For all of it: a server that drips must not hold up the start.
            let left = deadline.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match stream.read(&mut part)? {
                0 => return Ok(answer),
                _ if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
                length => answer.extend_from_slice(&part[..length]),
            }
        }
        Ok(answer)
    };
    let answer = answer().map_err(|error: std::io::Error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The body of a good answer.
fn body(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut status_line = head.lines().next()?.split(' ');
    let is_http = status_line.next()?.starts_with("HTTP/1.");
    let is_good = status_line.next()? == "200";
    (is_http && is_good).then_some(body)
}

/// The body of a good answer, if it is a word.
fn mode_in(answer: &str) -> Option<String> {
    let mode = body(answer)?.trim();
    let is_word = !mode.is_empty()
        && mode.len() <= MODE_MAX
        && mode.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then(|| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_the_body_of_a_good_answer() {
        let answer =
            |status, body| format!("HTTP/1.0 {status}\r\nContent-Type: text/plain\r\n\r\n{body}");
        assert_eq!(
            mode_in(&answer("200 OK", "nftables")).as_deref(),
            Some("nftables")
        );
        assert_eq!(
            mode_in(&answer("200 OK", "iptables\n")).as_deref(),
            Some("iptables")
        );
        for no_mode in [
            answer("404 Not Found", "page"),
            answer("200 OK", ""),
            answer("200 OK", "<html> </html>"),
            answer("200 OK", &"x".repeat(33)),
            "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(mode_in(&no_mode), None, "{no_mode:?}");
        }
    }
}
