//! One HTTP request at a time, as little as asking a server on this machine needs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::netns::Namespace;

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// No answer that a test reads whole is longer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The lines between the status and the body.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Gets a path, with more header lines.
pub fn get(
    namespace: &Namespace,
    from: SocketAddr,
    path: &str,
    headers: &[&str],
) -> Result<Answer> {
    assert!(headers.is_empty());
    namespace.run(|| get_here(from, path))?
}

fn get_here(server: SocketAddr, path: &str) -> Result<Answer> {
    let failed = || format!("failed to get http://{server}{path}");
    let mut stream = TcpStream::connect_timeout(&server, SILENCE).with_context(failed)?;
    stream
        .set_read_timeout(Some(SILENCE))
        .with_context(failed)?;
    // By HTTP/1.0 no answer comes in chunks, and each ends with its connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").with_context(failed)?;
    let mut text = String::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(failed)?;
    Answer::parse(&text)
        .with_context(|| format!("no HTTP: {text:?}"))
        .with_context(failed)
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
        Some(Self {
            status: status.parse().ok()?,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = Answer::parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody").expect("an answer");
        assert_eq!(
            (answer.status, &*answer.head, &*answer.body),
            (200, "A: b", "body")
        );
        assert_eq!(Answer::parse("nothing"), None);
        assert_eq!(Answer::parse("HTTP/1.1 x y\r\n\r\n"), None);
    }
}
