//! A faulty wire: a loopback proxy in front of an HTTP server whose behaviour a test switches while clients use it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;

use super::listener::{Listener, server_of};

/// How long a pump sleeps in a read before it looks whether the mode changed.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The longest head of a request that is read: longer ones are not S3.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// They reach the server.
    Pass = 0,
    /// They are answered with 503; connections that were open are cut.
    Unavailable = 1,
    /// They are never answered; bytes under way stop where they are.
    Hang = 2,
}

/// A proxy in front of one server; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    /// Shared with its threads.
    state: Arc<State>,
    /// Takes connections.
    listener: Listener,
}

/// What the threads share.
#[derive(Debug)]
struct State {
    /// Where requests go.
    server: SocketAddr,
    /// A [`Mode`].
    mode: AtomicU8,
    /// Counts changes of the mode: what began under an earlier one is cut.
    epoch: AtomicU64,
    /// Requests answered with 503, and connections that hung.
    faults: AtomicU64,
    /// Set when the value goes away.
    ended: Arc<AtomicBool>,
}

impl State {
    /// The mode now.
    fn mode(&self) -> Mode {
        match self.mode.load(Ordering::SeqCst) {
            1 => Mode::Unavailable,
            2 => Mode::Hang,
            _ => Mode::Pass,
        }
    }

    /// Whether something that began in an epoch should end. A hang is not an end: it is a pause before one.
    fn is_over(&self, epoch: u64) -> bool {
        self.ended.load(Ordering::SeqCst) || (self.epoch.load(Ordering::SeqCst) != epoch && self.mode() != Mode::Hang)
    }
}

impl Proxy {
    /// Starts it in front of `http://host:port`.
    pub fn start(endpoint: &str) -> anyhow::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let state = Arc::new(State {
            server: server_of(endpoint)?,
            mode: AtomicU8::new(Mode::Pass as u8),
            epoch: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            ended: Arc::clone(&ended),
        });
        let shared = Arc::clone(&state);
        let listener = Listener::start(ended, move |client| serve(&shared, client))?;
        Ok(Self { state, listener })
    }

    /// What clients take for the server.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.listener.endpoint()
    }

    /// Switches, for requests under way as well.
    pub fn set(&self, mode: Mode) {
        self.state.mode.store(mode as u8, Ordering::SeqCst);
        self.state.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// How many requests met a fault: a test that met none has shown nothing.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::SeqCst)
    }
}

/// One connection.
fn serve(state: &Arc<State>, client: TcpStream) -> anyhow::Result<()> {
    let epoch = state.epoch.load(Ordering::SeqCst);
    match state.mode() {
        Mode::Pass => pass(state, epoch, &client),
        Mode::Unavailable => {
            state.faults.fetch_add(1, Ordering::SeqCst);
            refuse(client)
        }
        Mode::Hang => {
            state.faults.fetch_add(1, Ordering::SeqCst);
            while !state.ended.load(Ordering::SeqCst) && state.mode() == Mode::Hang {
                thread::sleep(LOOK_INTERVAL);
            }
            Ok(())
        }
    }
}

/// Both directions, until one side closes or the mode changes.
fn pass(state: &Arc<State>, epoch: u64, client: &TcpStream) -> anyhow::Result<()> {
    let server = TcpStream::connect(state.server)?;
    let (up, down) = ((client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?));
    let shared = Arc::clone(state);
    let upward = thread::spawn(move || pump(&shared, epoch, up.0, up.1));
    pump(state, epoch, down.0, down.1);
    // Whoever ended first ends both, or the other pump would wait for bytes that never come.
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    upward.join().ok().context("a pump panicked")
}

/// One direction.
fn pump(state: &State, epoch: u64, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    let mut hung = false;
    if from.set_read_timeout(Some(LOOK_INTERVAL)).is_err() {
        return;
    }
    loop {
        let read = from.read(&mut buffer);
        while state.mode() == Mode::Hang && !state.ended.load(Ordering::SeqCst) {
            if !hung {
                hung = true;
                state.faults.fetch_add(1, Ordering::SeqCst);
            }
            thread::sleep(LOOK_INTERVAL);
        }
        let count = match read {
            _ if state.is_over(epoch) => 0,
            Ok(count) => count,
            Err(error) if is_timeout(&error) => continue,
            Err(_) => 0,
        };
        let sent = buffer.get(..count).map(|bytes| to.write_all(bytes));
        if count == 0 || !matches!(sent, Some(Ok(()))) {
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            return;
        }
    }
}

/// Nothing came within the interval.
fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// Reads one request to its end and answers 503 as S3 does.
fn refuse(client: TcpStream) -> anyhow::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut body_bytes = 0_u64;
    let mut head = (&mut reader).take(HEAD_BYTES_MAX);
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            body_bytes = value.trim().parse()?;
        }
    }
    // An answer on top of unread bytes would reach the client as a broken connection.
    std::io::copy(&mut reader.take(body_bytes), &mut std::io::sink())?;
    let body =
        "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
    let mut client = client;
    write!(
        client,
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    client.shutdown(Shutdown::Both)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// A server that answers each request with `ok`.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while client.read(&mut buffer).is_ok_and(|count| count > 0) {
                        if client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    /// Asks, and reads what comes within a short time.
    fn ask(client: &mut TcpStream) -> String {
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        if client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").is_err() {
            return String::new();
        }
        let mut buffer = [0; 1024];
        client.read(&mut buffer).map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned()).unwrap_or_default()
    }

    #[test]
    fn each_mode_does_what_it_says_and_is_left_again() {
        let proxy = Proxy::start(&format!("http://{}", server())).unwrap();
        let connect = || TcpStream::connect(proxy.listener.address).unwrap();
        let mut early = connect();
        assert!(ask(&mut early).ends_with("ok"));
        assert!(ask(&mut early).ends_with("ok"), "a connection is kept");
        assert_eq!(proxy.faults(), 0);
        proxy.set(Mode::Unavailable);
        thread::sleep(3 * LOOK_INTERVAL);
        assert!(!ask(&mut early).contains("200"), "open connections are cut");
        assert!(ask(&mut connect()).starts_with("HTTP/1.1 503"));
        proxy.set(Mode::Pass);
        let mut early = connect();
        assert!(ask(&mut early).ends_with("ok"));
        proxy.set(Mode::Hang);
        assert_eq!(ask(&mut early), "");
        assert_eq!(ask(&mut connect()), "");
        assert!(proxy.faults() >= 2);
        proxy.set(Mode::Pass);
        assert!(ask(&mut connect()).ends_with("ok"));
    }
}
