//! A faulty S3: a loopback proxy that knows the requests of a sink, and answers some of them wrongly, late or not at all,
//! before or after the server has carried them out.
//!
//! One request a connection: the server is asked to close it after its answer, so an answer is whatever comes until then.
//! A signature covers the host, so clients must be given the address of this proxy as the endpoint.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::listener::{Listener, server_of};

/// The longest head of a request that is read: longer ones are not S3.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// No server of a test is silent for longer.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// How late a late answer is.
const DELAY: Duration = Duration::from_millis(700);

/// What a sink asks of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A put that must not replace: a record of the ledger.
    Create,
    /// A put: a snapshot, a list of files.
    Put,
    /// Bytes of an object.
    Get,
    /// Whether an object is there.
    Head,
    /// Names of objects.
    List,
    /// The begin of a multipart upload.
    BeginUpload,
    /// A part of it.
    UploadPart,
    /// Its end.
    CompleteUpload,
    /// Giving it up.
    AbortUpload,
    /// Removing objects.
    Delete,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection breaks, and the server has heard nothing.
    LostRequest,
    /// The connection breaks after the server has carried the request out.
    LostAnswer,
    /// An error with this code, and the server has heard nothing.
    Refused(u16),
    /// An error with this code, and the server has carried the request out.
    DoneAndRefused(u16),
    /// An error of the server within an answer of 200, as S3 gives it at the end of an upload; carried out.
    ErrorIn200,
    /// A good answer, late.
    Late,
}

/// Which requests meet which faults: the faults come one after the other, each on one request of the kind, with as many good
/// answers between two of them. By default none.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The kinds.
    pub kinds: Vec<Kind>,
    /// The faults, in turn, again and again.
    pub faults: Vec<Fault>,
    /// How many requests of the kind pass between two faults.
    pub good_between: usize,
}

/// How often a fault was met by a kind of request.
pub type Met = BTreeMap<(Kind, Fault), u64>;

/// The proxy; it ends with this value.
#[derive(Debug)]
pub struct S3Faults {
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
    /// What happens to them.
    plan: Plan,
    /// What came so far.
    seen: Mutex<Seen>,
}

/// What came so far.
#[derive(Debug, Default)]
struct Seen {
    /// Requests of each kind.
    requests: BTreeMap<Kind, usize>,
    /// The faults that they met.
    met: Met,
}

/// A request, read whole.
struct Request {
    /// With every header.
    head: String,
    /// What follows.
    body: Vec<u8>,
}

impl S3Faults {
    /// Starts it in front of `http://host:port`.
    pub fn start(endpoint: &str, plan: Plan) -> anyhow::Result<Self> {
        let state = Arc::new(State { server: server_of(endpoint)?, plan, seen: Mutex::default() });
        let shared = Arc::clone(&state);
        let listener = Listener::start(Arc::default(), move |client| serve(&shared, client))?;
        Ok(Self { state, listener })
    }

    /// What clients take for the server.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.listener.endpoint()
    }

    /// The faults that were met so far.
    #[must_use]
    pub fn met(&self) -> Met {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).met.clone()
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<Kind, usize> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}

impl State {
    /// What happens to the next request of a kind.
    fn next_fault(&self, kind: Kind) -> Option<Fault> {
        let Plan { kinds, faults, good_between } = &self.plan;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let number = seen.requests.entry(kind).or_default();
        *number += 1;
        if !kinds.contains(&kind) {
            return None;
        }
        let turn = number.is_multiple_of(good_between + 1).then(|| *number / (good_between + 1) - 1)?;
        let fault = *faults.get(turn % faults.len().max(1))?;
        *seen.met.entry((kind, fault)).or_default() += 1;
        Some(fault)
    }
}

/// One connection: one request.
fn serve(state: &State, mut client: TcpStream) -> anyhow::Result<()> {
    let Some(request) = read_request(&client)? else { return Ok(()) };
    let fault = kind_of(&request.head).and_then(|kind| state.next_fault(kind));
    let answer = match fault {
        None => forward(state, &request)?,
        Some(Fault::LostRequest) => Vec::new(),
        Some(Fault::LostAnswer) => {
            forward(state, &request)?;
            Vec::new()
        }
        Some(Fault::Refused(code)) => error_answer(code),
        Some(Fault::DoneAndRefused(code)) => {
            forward(state, &request)?;
            error_answer(code)
        }
        Some(Fault::ErrorIn200) => {
            forward(state, &request)?;
            answer_of("200 OK", "InternalError")
        }
        Some(Fault::Late) => {
            let answer = forward(state, &request)?;
            thread::sleep(DELAY);
            answer
        }
    };
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)?;
    Ok(())
}

/// Reads a request to its end; `None` where a connection was opened for nothing.
fn read_request(client: &TcpStream) -> anyhow::Result<Option<Request>> {
    client.set_read_timeout(Some(SILENCE_MAX))?;
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut body_bytes) = (String::new(), 0_u64);
    let mut lines = (&mut reader).take(HEAD_BYTES_MAX);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            body_bytes = value.trim().parse()?;
        }
        head.push_str(&line);
    }
    let mut body = Vec::new();
    reader.take(body_bytes).read_to_end(&mut body)?;
    Ok(Some(Request { head, body }))
}

/// Has the server carry a request out; its answer, which ends with the connection.
fn forward(state: &State, request: &Request) -> anyhow::Result<Vec<u8>> {
    let mut server = TcpStream::connect(state.server)?;
    server.set_read_timeout(Some(SILENCE_MAX))?;
    server.write_all(format!("{}connection: close\r\n\r\n", request.head).as_bytes())?;
    server.write_all(&request.body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

/// What a request is for, by its method, its query and one header.
fn kind_of(head: &str) -> Option<Kind> {
    let mut words = head.lines().next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    let is_exclusive = head.lines().any(|line| line.to_ascii_lowercase().starts_with("if-none-match:"));
    Some(match method {
        "PUT" if has("partNumber") => Kind::UploadPart,
        "PUT" if is_exclusive => Kind::Create,
        "PUT" => Kind::Put,
        "POST" if has("uploads") => Kind::BeginUpload,
        "POST" if has("uploadId") => Kind::CompleteUpload,
        "POST" if has("delete") => Kind::Delete,
        "DELETE" if has("uploadId") => Kind::AbortUpload,
        "DELETE" => Kind::Delete,
        "HEAD" => Kind::Head,
        "GET" if has("list-type") => Kind::List,
        "GET" => Kind::Get,
        _ => return None,
    })
}

/// An error as S3 words it.
fn error_answer(code: u16) -> Vec<u8> {
    match code {
        409 => answer_of("409 Conflict", "ConditionalRequestConflict"),
        412 => answer_of("412 Precondition Failed", "PreconditionFailed"),
        500 => answer_of("500 Internal Server Error", "InternalError"),
        _ => answer_of("503 Service Unavailable", "SlowDown"),
    }
}

/// An answer that names an error.
fn answer_of(status: &str, code: &str) -> Vec<u8> {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>A fault of the test.</Message></Error>");
    let mut head = format!("HTTP/1.1 {status}\r\ncontent-type: application/xml\r\nconnection: close\r\n");
    // Writing into a string cannot fail.
    let _ = write!(head, "content-length: {}\r\n\r\n{body}", body.len());
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn each_request_of_a_sink_is_known() {
        for (head, kind) in [
            ("PUT /lake/p/1.json HTTP/1.1\r\nIf-None-Match: *\r\n", Kind::Create),
            ("PUT /lake/p/1.json HTTP/1.1\r\n", Kind::Put),
            ("GET /lake/p/1.json HTTP/1.1\r\n", Kind::Get),
            ("HEAD /lake/p/1.json HTTP/1.1\r\n", Kind::Head),
            ("GET /lake?list-type=2&prefix=p%2F HTTP/1.1\r\n", Kind::List),
            ("POST /lake/p/a.parquet?uploads HTTP/1.1\r\n", Kind::BeginUpload),
            ("PUT /lake/p/a.parquet?partNumber=1&uploadId=x HTTP/1.1\r\n", Kind::UploadPart),
            ("POST /lake/p/a.parquet?uploadId=x HTTP/1.1\r\n", Kind::CompleteUpload),
            ("DELETE /lake/p/a.parquet?uploadId=x HTTP/1.1\r\n", Kind::AbortUpload),
            ("DELETE /lake/p/1.json HTTP/1.1\r\n", Kind::Delete),
            ("POST /lake?delete HTTP/1.1\r\n", Kind::Delete),
        ] {
            assert_eq!(kind_of(head), Some(kind), "{head}");
        }
    }

    /// Scenario: five gets with two faults planned, one good answer between two of them.
    /// Guarantees: the faults come in turn, on the planned kind only, and are counted.
    #[test]
    fn faults_come_in_turn() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let _ = read_request(&client).unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            }
        });
        let faults = vec![Fault::LostAnswer, Fault::Refused(503)];
        let plan = Plan { kinds: vec![Kind::Get], faults, good_between: 1 };
        let proxy = S3Faults::start(&server, plan).unwrap();
        let ask = |method: &str| {
            let mut client = TcpStream::connect(proxy.listener.address).unwrap();
            client.write_all(format!("{method} /x HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        };
        assert!(ask("HEAD").ends_with("ok") && ask("HEAD").ends_with("ok"));
        assert!(ask("GET").ends_with("ok"));
        assert_eq!(ask("GET"), "");
        assert!(ask("GET").ends_with("ok"));
        assert!(ask("GET").starts_with("HTTP/1.1 503"));
        assert_eq!(proxy.met().values().sum::<u64>(), 2);
    }
}
