//! What a granted server may do to a plugin, and what a plugin may try with one.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    super::testing::{Heard, voice},
    *,
};
use crate::config::PrivateAddresses;

/// The local machine.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A resolver that says what it is told to, one answer after the other, the last again and again.
struct Answers {
    /// What is left to say.
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    /// How often it was asked.
    asked: AtomicUsize,
}

impl Answers {
    /// One answer after the other.
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }

    /// How often it was asked.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Lookup for Answers {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        let answer = answer.ok_or_else(|| io::Error::other("no such name"));
        async move { answer }.boxed()
    }
}

/// What a server says, and how long it waits before each part.
type Script = Vec<(Duration, Vec<u8>)>;

/// A server of this test.
struct Server {
    /// Where it is.
    address: SocketAddr,
    /// What it was asked.
    requests: Arc<Mutex<Vec<String>>>,
    /// Connections that it accepted.
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// A server that answers each request with the same parts, and then closes the connection if it says so.
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicUsize::new(0)));
        let (heard, accepted) = (Arc::clone(&requests), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (heard, script) = (Arc::clone(&heard), script.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    loop {
                        let mut piece = [0; 4096];
                        match stream.read(&mut piece).await {
                            Ok(bytes @ 1..) => request.extend_from_slice(&piece[..bytes]),
                            _ => return,
                        }
                        if !request.windows(4).any(|end| end == b"\r\n\r\n") {
                            continue;
                        }
                        heard.lock().unwrap().push(String::from_utf8_lossy(&std::mem::take(&mut request)).into_owned());
                        for (pause, part) in &script {
                            tokio::time::sleep(*pause).await;
                            if stream.write_all(part).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests, connections }
    }

    /// A server that answers at once.
    async fn saying(text: &str) -> Self {
        Self::start(vec![(Duration::ZERO, text.as_bytes().to_vec())]).await
    }

    /// Connections that it accepted.
    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A short answer that keeps the connection.
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// A grant of `api.test` at a port, in plain text, at private addresses.
fn grant(port: u16) -> HttpGrant {
    HttpGrant {
        host: "api.test".to_owned(),
        port,
        scheme: HttpScheme::Http,
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        private: PrivateAddresses::Networks(vec!["127.0.0.1/32".parse().unwrap()]),
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        request_bytes: 1_000,
        response_bytes: 1_000,
        requests_per_call: 100,
        concurrent: 2,
    }
}

/// Requests of an instance with one grant, in a call that has a minute.
fn requests(grant: &HttpGrant, lookup: &Arc<Answers>) -> Requests {
    let lookup: Arc<dyn Lookup> = Arc::clone(lookup) as _;
    let destinations: Arc<[Destination]> = Arc::new([Destination::new(grant, &lookup).unwrap()]);
    let clock = CallClock::new();
    clock.begin(Duration::from_secs(60));
    let mut requests = Requests::new(&destinations, &voice(), &clock);
    requests.begin_call();
    requests
}

/// A resolver that knows one machine.
fn local() -> Arc<Answers> {
    Answers::new(&[&["127.0.0.1"]])
}

/// A body of a request.
fn body(bytes: usize) -> WasiBody {
    let full = http_body_util::Full::new(Bytes::from(vec![b'x'; bytes]));
    full.map_err(|never| match never {}).boxed_unsync()
}

/// Sends a request and reads the response: status and body, or the error's name.
async fn send(requests: &mut Requests, method: &str, url: &str, bytes: usize) -> Result<(u16, String), String> {
    let request = Request::builder().method(method).uri(url).body(body(bytes)).unwrap();
    read(requests, request).await
}

/// The same with a request.
async fn read(requests: &mut Requests, request: Request<WasiBody>) -> Result<(u16, String), String> {
    let name = |error: Error| format!("{error:?}");
    let sending = requests.send_request(request, None, Box::new(std::future::ready(Ok(()))));
    let (response, _) = Box::into_pin(sending).await.map_err(name)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(name)?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[tokio::test]
async fn a_granted_server_is_asked_and_its_connection_kept() {
    let server = Server::saying(HELLO).await;
    let (lookup, port) = (local(), server.address.port());
    let mut requests = requests(&grant(port), &lookup);
    let request = Request::get(format!("http://API.test:{port}/a%20b/../c?d=e")).header("x-key", "k");
    let request = request.header("host", "evil.test").header("content-length", "7").body(body(0)).unwrap();
    assert_eq!(read(&mut requests, request).await, Ok((200, "hello".to_owned())));
    let posted = send(&mut requests, "POST", &format!("http://api.test:{port}/"), 3).await;
    assert_eq!(posted, Ok((200, "hello".to_owned())));
    let heard = server.requests.lock().unwrap();
    assert!(heard[0].starts_with("GET /c?d=e HTTP/1.1\r\n") && heard[0].contains("x-key: k\r\n"), "{heard:?}");
    assert!(heard[0].contains(&format!("host: api.test:{port}\r\n")) && !heard[0].contains("evil"), "{heard:?}");
    assert!(heard[1].contains("content-length: 3\r\n"), "{heard:?}");
    assert_eq!((server.connections(), lookup.asked()), (1, 1));
}

#[tokio::test]
async fn what_is_not_granted_is_neither_looked_up_nor_connected_to() {
    let server = Server::saying(HELLO).await;
    let (lookup, port) = (local(), server.address.port());
    let mut requests = requests(&grant(port), &lookup);
    for (reason, method, url) in [
        ("host", "GET", format!("http://other.test:{port}/")),
        ("host", "GET", format!("http://127.0.0.1:{port}/")),
        ("host", "GET", format!("http://[::1]:{port}/")),
        ("host", "GET", format!("http://2130706433:{port}/")),
        ("host", "GET", format!("http://api.test.:{port}/")),
        ("host", "GET", format!("http://api.test@other.test:{port}/")),
        ("host", "GET", format!("http://other.test@api.test:{port}/")),
        ("port", "GET", "http://api.test/".to_owned()),
        ("port", "GET", format!("http://api.test:{}/", port ^ 1)),
        ("port", "GET", format!("https://api.test:{port}/")),
        ("method", "DELETE", format!("http://api.test:{port}/")),
        ("method", "CONNECT", format!("http://api.test:{port}/")),
    ] {
        let (heard, _guard) = Heard::listen();
        // A voice of its own, since what is told is limited to a line a second.
        requests.voice = voice();
        assert_eq!(send(&mut requests, method, &url, 0).await, Err("HttpRequestDenied".to_owned()), "{url}");
        let refusals = heard.refusals();
        assert!(matches!(refusals.as_slice(), [one] if one.contains(&format!("reason=\"{reason}\""))), "{refusals:?}");
    }
    assert_eq!((server.connections(), lookup.asked()), (0, 0));
}

#[tokio::test]
async fn a_name_that_leads_to_an_address_that_is_not_granted_is_refused() {
    let server = Server::saying(HELLO).await;
    let port = server.address.port();
    for address in
        ["127.0.0.2", "169.254.169.254", "::1", "10.0.0.1", "::ffff:127.0.0.2", "0.0.0.0", "fe80::1", "64:ff9b::1"]
    {
        let (heard, _guard) = Heard::listen();
        let mut requests = requests(&grant(port), &Answers::new(&[&[address]]));
        let sent = send(&mut requests, "GET", &format!("http://api.test:{port}/"), 0).await;
        assert_eq!(sent, Err("DestinationIpProhibited".to_owned()), "{address}");
        let refusals = heard.refusals();
        assert!(matches!(refusals.as_slice(), [one] if one.contains("reason=\"address\"")), "{refusals:?}");
    }
    let public = HttpGrant { private: PrivateAddresses::Refused, ..grant(port) };
    let sent = send(&mut requests(&public, &local()), "GET", &format!("http://api.test:{port}/"), 0).await;
    assert_eq!(sent, Err("DestinationIpProhibited".to_owned()));
    let nowhere = requests(&grant(port), &Answers::new(&[]));
    let sent = send(&mut { nowhere }, "GET", &format!("http://api.test:{port}/"), 0).await;
    assert_eq!(sent, Err("DnsError { rcode: None, info_code: None }".to_owned()));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_answer_that_changes_between_check_and_connect_changes_nothing() {
    let server = Server::saying(HELLO).await;
    let port = server.address.port();
    let url = format!("http://api.test:{port}/");
    // Asked again it would say the cloud's metadata; there is no second question.
    let lookup = Answers::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    assert_eq!(send(&mut requests(&grant(port), &lookup), "GET", &url, 0).await, Ok((200, "hello".to_owned())));
    assert_eq!((lookup.asked(), server.connections()), (1, 1));
    // The other way round it is the first answer that counts too.
    let lookup = Answers::new(&[&["169.254.169.254"], &["127.0.0.1"]]);
    let sent = send(&mut requests(&grant(port), &lookup), "GET", &url, 0).await;
    assert_eq!(sent, Err("DestinationIpProhibited".to_owned()));
    // Of a mixed answer only what may be connected to is.
    let lookup = Answers::new(&[&["127.0.0.2", "::1", "127.0.0.1"]]);
    assert_eq!(send(&mut requests(&grant(port), &lookup), "GET", &url, 0).await, Ok((200, "hello".to_owned())));
    assert_eq!((lookup.asked(), server.connections()), (1, 2));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let inside = Server::saying(HELLO).await;
    let target = format!("http://api.test:{}/secret", inside.address.port());
    let server =
        Server::saying(&format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n")).await;
    let port = server.address.port();
    let mut requests = requests(&grant(port), &local());
    assert_eq!(send(&mut requests, "GET", &format!("http://api.test:{port}/"), 0).await, Ok((302, String::new())));
    // If the plugin follows it, that is a request like any other.
    assert_eq!(send(&mut requests, "GET", &target, 0).await, Err("HttpRequestDenied".to_owned()));
    assert_eq!(inside.connections(), 0);
}

/// What a response comes to, and the reason that the log tells.
async fn refused(script: Script, change: impl Fn(HttpGrant) -> HttpGrant) -> (Result<(u16, String), String>, String) {
    let (heard, _guard) = Heard::listen();
    let server = Server::start(script).await;
    let port = server.address.port();
    let mut requests = requests(&change(grant(port)), &local());
    let sent = send(&mut requests, "GET", &format!("http://api.test:{port}/"), 0).await;
    let reasons = heard.refusals().join("\n");
    (sent, reasons)
}

#[tokio::test]
async fn a_response_that_is_too_long_ends_at_the_limit() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    for text in [
        head("content-length: 1001\r\n") + &"x".repeat(1001),
        head("content-length: 99999999999\r\n"),
        head("transfer-encoding: chunked\r\n") + &chunk.repeat(3) + "0\r\n\r\n",
        // Without a length it ends with the connection.
        head("") + &"x".repeat(5_000),
    ] {
        let (sent, reasons) = refused(vec![(Duration::ZERO, text.into_bytes())], |grant| grant).await;
        assert_eq!(sent, Err("HttpResponseBodySize(Some(1000))".to_owned()));
        assert!(reasons.contains("reason=\"response-bytes\""), "{reasons}");
    }
    let whole = head("transfer-encoding: chunked\r\n") + &chunk.repeat(2) + "0\r\n\r\n";
    let (sent, reasons) = refused(vec![(Duration::ZERO, whole.into_bytes())], |grant| grant).await;
    assert_eq!((sent.unwrap().1.len(), reasons.as_str()), (1000, ""));
}

#[tokio::test]
async fn a_response_that_is_too_slow_ends_in_time_wherever_it_dawdles() {
    let piece = |text: &str| (Duration::from_millis(40), text.as_bytes().to_vec());
    let drip = |head: &str, tail: &str| {
        let mut script = vec![(Duration::ZERO, head.as_bytes().to_vec())];
        script.extend(std::iter::repeat_n(piece(tail), 100));
        script
    };
    for script in [
        // Never a word.
        vec![(Duration::from_secs(60), Vec::new())],
        drip("HTTP/1.1 200 OK\r\n", "x: y\r\n"),
        drip("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "x"),
    ] {
        let began = std::time::Instant::now();
        let (sent, reasons) = refused(script, |grant| HttpGrant { timeout: Duration::from_millis(200), ..grant }).await;
        assert_eq!(sent, Err("HttpResponseTimeout".to_owned()));
        assert!(reasons.contains("reason=\"timeout\""), "{reasons}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_request_ends_before_the_call_does() {
    let server = Server::start(vec![(Duration::from_secs(60), Vec::new())]).await;
    let port = server.address.port();
    let mut requests = requests(&grant(port), &local());
    // A tenth of it is what a busy machine may take to come back.
    requests.clock.begin(Duration::from_secs(3));
    requests.begin_call();
    let sent = send(&mut requests, "GET", &format!("http://api.test:{port}/"), 0).await;
    assert_eq!(sent, Err("HttpResponseTimeout".to_owned()));
    assert!(!requests.clock.is_over());
}

#[tokio::test]
async fn header_bombs_are_refused() {
    let many = (0..200).map(|at| format!("x-{at}: y\r\n")).collect::<Vec<_>>().concat();
    let long = format!("x: {}\r\n", "y".repeat(HEADER_BYTES_MAX + 1));
    let endless = format!("x: {}", "y".repeat(2 << 20));
    for fields in [many, long, endless] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let (sent, reasons) = refused(vec![(Duration::ZERO, text.into_bytes())], |grant| grant).await;
        assert_eq!(sent, Err(format!("HttpResponseHeaderSectionSize(Some({HEADER_BYTES_MAX}))")));
        assert!(reasons.contains("reason=\"response-headers\""), "{reasons}");
    }
    let trailers =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let (sent, reasons) = refused(vec![(Duration::ZERO, trailers.into_bytes())], |grant| grant).await;
    assert!(sent.is_err() && reasons.contains("reason=\"response-headers\""), "{sent:?}: {reasons}");
}

#[tokio::test]
async fn a_server_that_speaks_no_http_or_hangs_up_is_an_error_and_no_refusal() {
    for (text, error) in [
        ("hello\r\n\r\n", "HttpProtocolError"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", "HttpResponseTimeout"),
    ] {
        let script = vec![(Duration::ZERO, text.as_bytes().to_vec())];
        let (sent, _) = refused(script, |grant| HttpGrant { timeout: Duration::from_millis(300), ..grant }).await;
        assert_eq!(sent, Err(error.to_owned()));
    }
    let port = TcpListener::bind((LOCAL, 0)).await.unwrap().local_addr().unwrap().port();
    let sent = send(&mut requests(&grant(port), &local()), "GET", &format!("http://api.test:{port}/"), 0).await;
    assert_eq!(sent, Err("ConnectionRefused".to_owned()));
}

#[tokio::test]
async fn requests_are_bounded_in_size_and_number() {
    let server = Server::saying(HELLO).await;
    let port = server.address.port();
    let url = format!("http://api.test:{port}/");
    let few = HttpGrant { requests_per_call: 3, ..grant(port) };
    let mut requests = requests(&few, &local());
    let (heard, guard) = Heard::listen();
    assert_eq!(send(&mut requests, "POST", &url, 1_001).await, Err("HttpRequestBodySize(Some(1000))".to_owned()));
    assert!(heard.refusals().join("").contains("reason=\"request-bytes\""));
    drop(guard);
    assert!(send(&mut requests, "POST", &url, 1_000).await.is_ok());
    // Two responses that are not read hold both places.
    let head = |requests: &mut Requests| {
        let request = Request::get(&url).body(body(0)).unwrap();
        Box::into_pin(requests.send_request(request, None, Box::new(std::future::ready(Ok(())))))
    };
    requests.begin_call();
    let first = head(&mut requests).await.unwrap();
    let second = head(&mut requests).await.unwrap();
    assert!(matches!(head(&mut requests).await.map(drop), Err(Error::ConnectionLimitReached)));
    drop((first, second));
    assert!(head(&mut requests).await.is_ok());
    // That was the third of this call.
    assert!(matches!(head(&mut requests).await.map(drop), Err(Error::ConnectionLimitReached)));
    requests.begin_call();
    assert!(head(&mut requests).await.is_ok());
}

/// A server with TLS, by OpenSSL's command; ended with it.
struct Encrypted {
    /// The process.
    process: Child,
    /// Its port.
    port: u16,
    /// Who signed its certificate, and where.
    folder: tempfile::TempDir,
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Encrypted {
    /// A server that is `api.test`.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |arguments: &[&str]| {
            let mut command = Command::new("openssl");
            let output = command.args(arguments).current_dir(folder.path()).stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let authority =
            [&["req", "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt"], &new_key[..]].concat();
        openssl(&authority);
        let request = [
            &["req", "-subj", "/CN=s", "-addext", "subjectAltName=DNS:api.test", "-keyout", "s.key", "-out", "s.csr"],
            &new_key[..5],
        ];
        openssl(&request.concat());
        openssl(&[
            "x509",
            "-req",
            "-in",
            "s.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-copy_extensions",
            "copy",
            "-out",
            "s.crt",
        ]);
        let port = std::net::TcpListener::bind((LOCAL, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new("openssl");
        let accept = format!("127.0.0.1:{port}");
        command.args(["s_server", "-accept", &accept, "-cert", "s.crt", "-key", "s.key", "-www", "-quiet"]);
        let silent =
            command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = silent.spawn().unwrap();
        let server = Self { process, port, folder };
        let began = std::time::Instant::now();
        while std::net::TcpStream::connect((LOCAL, port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "openssl s_server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Who signed its certificate.
    fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }
}

#[tokio::test]
async fn certificates_are_checked_against_the_hosts_name() {
    let server = Encrypted::start();
    let encrypted = |host: &str, ca_file| HttpGrant {
        host: host.to_owned(),
        scheme: HttpScheme::Https,
        response_bytes: 1 << 20,
        ca_file,
        ..grant(server.port)
    };
    for (host, ca_file, is_right) in [
        ("api.test", Some(server.authority()), true),
        ("other.test", Some(server.authority()), false),
        ("api.test", None, false),
    ] {
        let url = format!("https://{host}:{}/", server.port);
        let sent = send(&mut requests(&encrypted(host, ca_file), &local()), "GET", &url, 0).await;
        match sent {
            Ok((status, _)) => assert!(is_right && status == 200, "{host}: {status}"),
            Err(error) => assert!(!is_right && error == "TlsCertificateError", "{host}: {error}"),
        }
    }
    let missing = encrypted("api.test", Some("/no/such.pem".into()));
    let lookup: Arc<dyn Lookup> = local();
    let words = Destination::new(&missing, &lookup).map(|_| ()).unwrap_err();
    assert!(words.contains("but /no/such.pem cannot be read"), "{words}");
}
