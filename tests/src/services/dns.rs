//! A name server that answers what a test says, each time something else where it says so.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// None at all, as a server does that is away.
    Silence,
}

/// How often the thread looks whether it is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The largest message over UDP that everybody takes.
const MESSAGE_BYTES_MAX: usize = 512;
/// The type of a record: an IPv4 address.
const A: u16 = 1;
/// The type of a record: an IPv6 address.
const AAAA: u16 = 28;

/// A name server over UDP; it ends with this value.
#[derive(Debug)]
pub struct NameServer {
    /// Set when the value goes away.
    ended: Arc<AtomicBool>,
    /// How often each name was asked for its IPv4 addresses.
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl NameServer {
    /// Answers to each name in turn; a name that is not here does not exist.
    pub fn start(at: SocketAddr, names: HashMap<String, Vec<Answer>>) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(at).with_context(|| format!("cannot listen at {at}"))?;
        socket.set_read_timeout(Some(LOOK_INTERVAL))?;
        let server = Self { ended: Arc::default(), asked: Arc::default() };
        let (ended, asked) = (Arc::clone(&server.ended), Arc::clone(&server.asked));
        thread::spawn(move || {
            let mut turns: HashMap<(String, u16), usize> = HashMap::new();
            let mut message = [0; MESSAGE_BYTES_MAX];
            while !ended.load(Ordering::SeqCst) {
                let Ok((length, client)) = socket.recv_from(&mut message) else { continue };
                let Ok((name, kind, question)) = read(message.get(..length).unwrap_or_default()) else { continue };
                let turn = turns.entry((name.clone(), kind)).or_default();
                *turn += 1;
                if kind == A {
                    *asked.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default() += 1;
                }
                let answers = names.get(&name).map(Vec::as_slice).unwrap_or_default();
                let answer = (*turn - 1).checked_rem(answers.len()).and_then(|at| answers.get(at));
                if let Some(reply) = reply(&message, question, kind, answer) {
                    // A client that is gone asks no more.
                    let _ = socket.send_to(&reply, client);
                }
            }
        });
        Ok(server)
    }

    /// How often a name was asked for its IPv4 addresses.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// Name and type that a message asks for, and where the question ends.
fn read(message: &[u8]) -> anyhow::Result<(String, u16, usize)> {
    let (mut at, mut parts) = (12, Vec::new());
    loop {
        let length = usize::from(*message.get(at).context("cut short")?);
        at += 1;
        if length == 0 {
            break;
        }
        ensure!(length < 64, "a compressed name");
        let part = message.get(at..at + length).context("cut short")?;
        parts.push(String::from_utf8_lossy(part).to_ascii_lowercase());
        at += length;
    }
    // Behind the type is the class.
    let kind: [u8; 2] = message.get(at..at + 2).context("cut short")?.try_into()?;
    Ok((parts.join("."), u16::from_be_bytes(kind), at + 4))
}

/// The message that answers a question, which ends at a place; none for silence.
fn reply(message: &[u8], question: usize, kind: u16, answer: Option<&Answer>) -> Option<Vec<u8>> {
    let addresses: Vec<Vec<u8>> = match answer {
        Some(Answer::Silence) => return None,
        Some(Answer::Addresses(addresses)) => addresses
            .iter()
            .filter_map(|address| match (kind, address) {
                (A, IpAddr::V4(address)) => Some(address.octets().to_vec()),
                (AAAA, IpAddr::V6(address)) => Some(address.octets().to_vec()),
                _ => None,
            })
            .collect(),
        None => Vec::new(),
    };
    let count = u8::try_from(addresses.len()).ok()?;
    let mut reply = message.get(..question)?.to_vec();
    // An answer with authority and recursion; 3: there is no such name. One question, so many answers, nothing more.
    let code = if answer.is_none() { 3 } else { 0 };
    reply.splice(2..12, [0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    for address in addresses {
        // The name of the question; type; class; good for no time at all.
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(address.len()).ok()?]);
        reply.extend(address);
    }
    Some(reply)
}
