//! An HTTP server that behaves as badly as the path says that it is asked for, and counts who comes.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::listener::Listener;

/// Between two bytes of an answer that never ends.
const DRIP: Duration = Duration::from_millis(50);
/// Longest that a connection is kept without an answer, if nobody closes it.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of what is too large for anybody.
const MUCH: usize = 4 << 20;

/// What a server does.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Answers every request with a text.
    Says(String),
    /// `/ok` is answered with `public`; `/to?URL` redirects; all else is a crime: see `misbehave`.
    Badly,
}

/// A server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    /// Takes connections.
    _listener: Listener,
    /// How many there were.
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Listens at an address.
    pub fn start(at: SocketAddr, manner: Manner) -> anyhow::Result<Self> {
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let listener = Listener::start_at(at, Arc::default(), move |client| {
            count.fetch_add(1, Ordering::SeqCst);
            serve(client, &manner)
        })?;
        Ok(Self { _listener: listener, connections })
    }

    /// How many have connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves one request.
fn serve(mut client: TcpStream, manner: &Manner) -> anyhow::Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    let (head, mut left) = loop {
        let bytes = client.read(&mut piece)?;
        if bytes == 0 {
            return Ok(());
        }
        request.extend_from_slice(piece.get(..bytes).unwrap_or_default());
        if let Some(end) = request.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(request.get(..end).unwrap_or_default()).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            break (head, length.unwrap_or(0_usize).saturating_sub(request.len() - end - 4));
        }
    };
    // Who closes with something unread takes the answer away from the other end.
    while left > 0 {
        let bytes = client.read(&mut piece)?;
        left = if bytes == 0 { 0 } else { left.saturating_sub(bytes) };
    }
    let path = head.split(' ').nth(1).unwrap_or("/");
    match manner {
        Manner::Says(text) => Ok(client.write_all(answer(text).as_bytes())?),
        Manner::Badly => misbehave(&mut client, path),
    }
}

/// A whole answer, after which the connection is closed, so that the next request looks the name up again.
fn answer(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len())
}

/// What a path asks for.
fn misbehave(client: &mut TcpStream, path: &str) -> anyhow::Result<()> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n";
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let long = "x".repeat(MUCH);
    match path {
        "/ok" => client.write_all(answer("public").as_bytes())?,
        "/to" => {
            let redirect = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: close\r\nlocation: ";
            client.write_all(format!("{redirect}{query}\r\n\r\n").as_bytes())?;
        }
        "/announced" => client.write_all(format!("{head}content-length: {MUCH}\r\n\r\n{long}").as_bytes())?,
        "/endless" => {
            client.write_all(chunked.as_bytes())?;
            // Until the other end has had enough of it.
            loop {
                client.write_all(b"1000\r\n")?;
                client.write_all(long.get(..0x1000).unwrap_or_default().as_bytes())?;
                client.write_all(b"\r\n")?;
            }
        }
        "/never" => drop(client.read(&mut [0])),
        "/drip" => {
            client.write_all(format!("{head}content-length: 1000\r\n\r\n").as_bytes())?;
            drip(client)?;
        }
        "/slow-head" => {
            client.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ")?;
            drip(client)?;
        }
        "/many-fields" => {
            let fields = (0..1_000).map(|number| format!("x-{number}: v\r\n")).collect::<Vec<_>>().concat();
            client.write_all(format!("{head}{fields}content-length: 0\r\n\r\n").as_bytes())?;
        }
        "/long-field" => client.write_all(format!("{head}x-long: {long}\r\ncontent-length: 0\r\n\r\n").as_bytes())?,
        "/endless-head" => {
            client.write_all(head.as_bytes())?;
            for number in 0_u64.. {
                client.write_all(format!("x-{number}: {}\r\n", long.get(..1_000).unwrap_or_default()).as_bytes())?;
            }
        }
        "/trailers" => {
            client.write_all(format!("{chunked}2\r\nhi\r\n0\r\nx-long: {long}\r\n\r\n").as_bytes())?;
        }
        _ => client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?,
    }
    Ok(())
}

/// A byte now and then, until the other end has had enough.
fn drip(client: &mut TcpStream) -> anyhow::Result<()> {
    loop {
        client.write_all(b"x")?;
        thread::sleep(DRIP);
    }
}
