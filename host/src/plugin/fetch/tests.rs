//! What a server may do to whoever downloads from it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use futures::{FutureExt as _, future::BoxFuture};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::config::{Artifact, Credentials, PrivateAddresses, Secret};

/// Every name is this machine.
struct Local;

impl Lookup for Local {
    fn lookup(&self, _: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) }.boxed()
    }
}

/// Status, headers and body of an answer to a path, asked by somebody.
type Answers = dyn Fn(&str, &str, u16) -> (u16, String, Vec<u8>) + Send + Sync;

/// A server that answers as it is told to.
struct Server {
    /// Where it listens.
    port: u16,
    /// The requests: path and who asks.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    /// Starts it; the answers are told the path, who asks, and the port.
    async fn start(answers: impl Fn(&str, &str, u16) -> (u16, String, Vec<u8>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let answers: Arc<Answers> = Arc::new(answers);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap_or(b'\n'));
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let who = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or_default();
                heard.lock().unwrap().push((path.clone(), who.to_owned()));
                let (status, headers, body) = answers(&path, who, port);
                let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
                let _ = stream.write_all(format!("{head}{headers}\r\n").as_bytes()).await;
                let _ = stream.write_all(&body).await;
            }
        });
        Self { port, asked }
    }

    /// What was asked for.
    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

/// A download from this machine.
fn download(location: Location) -> Download {
    let (credentials, private) = (Credentials::None, PrivateAddresses::Allowed);
    Download { location, credentials, ca_file: None, private, timeout: Duration::from_secs(10) }
}

/// A file.
fn file(port: u16, path: &str) -> Location {
    Location::File(format!("http://files.test:{port}/{path}").parse().unwrap())
}

/// What becomes of a download.
async fn get(download: &Download, blobs: Option<&Blobs>) -> Result<Vec<u8>, String> {
    let client = Client::new(download, "http", Arc::new(Local))?;
    run(&client, download, 1_000, blobs).await.map_err(|fault| fault.words)
}

#[tokio::test]
async fn a_file_is_downloaded_within_its_limits() {
    let server = Server::start(|path, _, port| match path {
        "/good" => (200, String::new(), b"component".to_vec()),
        "/large" => (200, String::new(), vec![0; 1_001]),
        "/endless" => (302, format!("location: http://files.test:{port}/endless\r\n"), Vec::new()),
        "/once" => (307, "location: /good\r\n".to_owned(), Vec::new()),
        "/nowhere" => (302, String::new(), Vec::new()),
        "/plain" => (302, "location: ftp://files.test/good\r\n".to_owned(), Vec::new()),
        "/private" => (302, "location: http://169.254.169.254/token\r\n".to_owned(), Vec::new()),
        "/secret" => (401, String::new(), Vec::new()),
        "/closed" => (403, String::new(), Vec::new()),
        "/odd" => (418, String::new(), Vec::new()),
        _ => (404, String::new(), Vec::new()),
    })
    .await;
    let mut from = download(file(server.port, "good"));
    assert_eq!(get(&from, None).await.unwrap(), b"component");
    from.location = file(server.port, "once");
    assert_eq!(get(&from, None).await.unwrap(), b"component");
    from.private = PrivateAddresses::Networks(vec!["127.0.0.0/8".parse().unwrap()]);
    for (path, words) in [
        ("large", "has more than 1000 bytes (limits.component_bytes)"),
        ("endless", "redirects more than 5 times"),
        ("nowhere", "redirects to nowhere"),
        ("plain", "it leads to ftp://files.test/good, which is not http"),
        (
            "private",
            "169.254.169.254, which is no address of the public internet; add `download: {allow_private: true}`",
        ),
        ("secret", "files.test wants to know who asks; add `download: {username: ..., password: ...}`"),
        ("closed", "is forbidden for who `download` says that we are (status 403)"),
        ("odd", "answers with status 418"),
        ("missing?key=geheim", "/missing does not exist (status 404)"),
    ] {
        from.location = file(server.port, path);
        let refusal = get(&from, None).await.unwrap_err();
        assert!(refusal.starts_with("cannot be downloaded") && refusal.contains(words), "{path}: {refusal}");
        assert!(!refusal.contains("geheim"), "{refusal}");
    }
    from.private = PrivateAddresses::Refused;
    let before = server.paths().len();
    let refusal = get(&from, None).await.unwrap_err();
    assert!(refusal.contains("the name leads to 127.0.0.1, which is no address of the public internet"), "{refusal}");
    assert_eq!(server.paths().len(), before, "it was not even asked");
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_and_one_that_is_slow_is_given_up() {
    let tries = Mutex::new(0);
    let server = Server::start(move |_, _, _| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        if *tries == 1 { (503, String::new(), Vec::new()) } else { (200, String::new(), b"component".to_vec()) }
    })
    .await;
    let from = download(file(server.port, "busy"));
    assert_eq!(get(&from, None).await.unwrap(), b"component");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut from = download(file(silent.local_addr().unwrap().port(), "slow"));
    from.timeout = Duration::from_millis(300);
    let refusal = get(&from, None).await.unwrap_err();
    assert_eq!(refusal, "cannot be downloaded within 300ms (download.timeout)");
}

#[tokio::test]
async fn who_asks_is_not_told_to_whom_a_server_redirects() {
    let other = Server::start(|_, _, _| (200, String::new(), b"component".to_vec())).await;
    let port = other.port;
    let server = Server::start(move |path, _, _| match path {
        "/a" => (302, "location: /b\r\n".to_owned(), Vec::new()),
        _ => (302, format!("location: http://other.test:{port}/c\r\n"), Vec::new()),
    })
    .await;
    let mut from = download(file(server.port, "a"));
    from.credentials = Credentials::Token(Secret::new("geheim"));
    assert_eq!(get(&from, None).await.unwrap(), b"component");
    let bearer = "Bearer geheim".to_owned();
    assert_eq!(*server.asked.lock().unwrap(), [("/a".to_owned(), bearer.clone()), ("/b".to_owned(), bearer)]);
    assert_eq!(*other.asked.lock().unwrap(), [("/c".to_owned(), String::new())]);
}

/// A digest as it stands in a registry.
fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

#[tokio::test]
async fn an_artifact_is_pulled_with_a_token_and_then_kept() {
    let component = b"component".to_vec();
    let layer = json!({"mediaType": "application/wasm", "digest": digest(&component), "size": component.len()});
    let manifest = json!({"schemaVersion": 2, "layers": [layer]}).to_string().into_bytes();
    let manifest_digest: [u8; 32] = Sha256::digest(&manifest).into();
    let (path, blob) = (format!("/v2/team/keep/manifests/{}", digest(&manifest)), digest(&component));
    let (asked, lies) = (path.clone(), Arc::new(Mutex::new(false)));
    let is_lying = Arc::clone(&lies);
    let server = Server::start(move |path, who, port| {
        let basic = "Basic bWU6Z2VoZWlt";
        if path == "/token?service=registry.test&scope=repository%3Ateam%2Fkeep%3Apull" {
            let status = if who == basic { 200 } else { 401 };
            return (status, String::new(), b"{\"token\": \"t1\"}".to_vec());
        }
        if who != "Bearer t1" {
            let realm = format!("Bearer realm=\"http://auth.test:{port}/token\",service=\"registry.test\"");
            return (401, format!("www-authenticate: {realm}\r\n"), Vec::new());
        }
        match path {
            "/v2/team/keep/blobs/other" => (404, String::new(), Vec::new()),
            _ if path == asked => (200, String::new(), manifest.clone()),
            _ if *is_lying.lock().unwrap() => (200, String::new(), b"impostors".to_vec()),
            _ if path.ends_with(&blob) => (200, String::new(), component.clone()),
            _ => (404, String::new(), Vec::new()),
        }
    })
    .await;
    let artifact = Artifact {
        registry: format!("registry.test:{}", server.port),
        repository: "team/keep".to_owned(),
        tag: None,
        digest: Some(manifest_digest),
    };
    let mut from = download(Location::Artifact(artifact.clone()));
    let refusal = get(&from, None).await.unwrap_err();
    assert!(refusal.contains("auth.test wants to know who asks"), "{refusal}");
    from.credentials = Credentials::User("me".to_owned(), Secret::new("wrong"));
    let refusal = get(&from, None).await.unwrap_err();
    assert!(refusal.contains("auth.test does not let in who `download` says that we are"), "{refusal}");
    from.credentials = Credentials::User("me".to_owned(), Secret::new("geheim"));
    *lies.lock().unwrap() = true;
    let refusal = get(&from, None).await.unwrap_err();
    assert!(
        refusal.contains("the server's component has SHA-256") && refusal.contains("nothing of it is used"),
        "{refusal}"
    );
    *lies.lock().unwrap() = false;
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(folder.path().join("blobs"));
    assert_eq!(get(&from, Some(&blobs)).await.unwrap(), b"component");
    let before = server.paths().len();
    assert_eq!(get(&from, Some(&blobs)).await.unwrap(), b"component");
    assert_eq!(server.paths().len(), before, "what has a digest is not asked for twice");
    // Another digest than that of the manifest behind it.
    let tag = Artifact { tag: Some("latest".to_owned()), digest: None, ..artifact };
    from.location = Location::Artifact(tag);
    let refusal = get(&from, None).await.unwrap_err();
    assert!(refusal.contains("/v2/team/keep/manifests/latest does not exist (status 404)"), "{refusal}");
}
