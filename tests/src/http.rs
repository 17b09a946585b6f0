//! HTTP as the suites need it: by hand, so that what is sent and what comes back is known to the
//! byte.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::netns::Namespace;

const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its status line and headers.
    pub head: String,
    /// The rest.
    pub body: String,
}

/// Connects inside a namespace.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
    let stream = namespace.run(|| TcpStream::connect_timeout(&to, TIMEOUT))?;
    let stream = stream.with_context(|| format!("failed to connect to {to}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Gets a path, with more header lines.
pub fn get(
    namespace: &Namespace,
    from: SocketAddr,
    path: &str,
    headers: &[&str],
) -> Result<Answer> {
    let mut stream = connect(namespace, from)?;
    stream.write_all(request(path, headers).as_bytes())?;
    read(stream)
}

/// What comes until the other end closes.
pub fn read(mut stream: TcpStream) -> Result<Answer> {
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .context("failed to read the answer")?;
    let answer = String::from_utf8(answer).context("the answer is not UTF-8")?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("no answer of HTTP: {answer:?}");
    };
    Ok(Answer {
        status: status(head)?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// In HTTP/1.0 a body ends with the connection, and is not chunked.
fn request(path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().flat_map(|header| [header, "\r\n"]).collect();
    format!("GET {path} HTTP/1.0\r\nHost: agent\r\n{headers}\r\n")
}

fn status(head: &str) -> Result<u16> {
    let status = head.split(' ').nth(1).context("no status")?;
    status.parse().context("the status is no number")
}

/// Reads the lines of an answer that goes on.
#[derive(Debug)]
pub struct Follower {
    stream: TcpStream,
    lines: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Follower {
    /// Keeps the lines. Returns once the head of the answer has come.
    pub fn start(namespace: &Namespace, from: SocketAddr, path: &str) -> Result<Self> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let keep = move |line| {
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        };
        let follower = Self::start_with(namespace, from, path, keep)?;
        Ok(Self { lines, ..follower })
    }

    /// Keeps nothing: each line is handed to `take`.
    pub fn start_with(
        namespace: &Namespace,
        from: SocketAddr,
        path: &str,
        mut take: impl FnMut(String) + Send + 'static,
    ) -> Result<Self> {
        let mut stream = connect(namespace, from)?;
        stream.write_all(request(path, &[]).as_bytes())?;
        stream.set_read_timeout(None)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                bail!("no answer: {head:?}");
            }
        }
        let status = status(&head)?;
        if status != 200 {
            bail!("{path}: {head}");
        }
        let thread =
            thread::spawn(move || reader.lines().map_while(Result::ok).for_each(&mut take));
        Ok(Self {
            stream,
            lines: Arc::default(),
            thread,
        })
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until there are so many lines that are not empty.
    pub fn wait_for(&self, number: usize, at_most: Duration) -> Result<()> {
        let deadline = Instant::now() + at_most;
        loop {
            let lines = self.lines();
            let there = lines.iter().filter(|line| !line.is_empty()).count();
            if there >= number {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{there} lines of {number} came within {at_most:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Hangs up; all that came.
    pub fn stop(self) -> Result<Vec<String>> {
        let _ended_already = self.stream.shutdown(Shutdown::Both);
        self.wait()
    }

    /// Waits until the other end hangs up; all that came.
    pub fn wait(self) -> Result<Vec<String>> {
        if self.thread.join().is_err() {
            bail!("the thread that follows has died");
        }
        Ok(self
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }
}
