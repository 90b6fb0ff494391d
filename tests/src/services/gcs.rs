//! A stand-in for Google Cloud Storage: its XML interface is S3's with other headers, so a translator in front of the real S3
//! server of the tests serves it. (fake-gcs-server knows neither the XML interface's uploads in parts nor its conditions.)
//!
//! It shows that the product's way through the GCS client works; what only Google's servers do, it cannot show.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fs_data_sink::config::{GcsConfig, GcsCredentials, SinkKind};
use reqwest::Method;

use super::{listener::Listener, runtime, s3::S3};

/// One request.
const REQUEST_LIMIT: Duration = Duration::from_mins(1);

/// The longest body: a part and a little.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Headers that mean the same to both, of requests.
const REQUEST_HEADERS: [&str; 3] = ["range", "content-type", "if-none-match"];

/// Headers that mean the same to both, of answers.
const ANSWER_HEADERS: [&str; 5] = ["etag", "last-modified", "content-type", "content-range", "accept-ranges"];

/// The translator, for as long as the process lives.
#[derive(Debug)]
pub struct Gcs {
    /// Takes connections.
    listener: Listener,
    /// The bucket behind it.
    bucket: String,
}

/// A request as it came.
struct Request {
    /// `GET`.
    method: Method,
    /// The address without the server.
    target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// All of it.
    body: Vec<u8>,
}

impl Gcs {
    /// Starts it in front of a server.
    pub fn start(s3: &'static S3) -> anyhow::Result<Self> {
        let listener = Listener::start(Arc::default(), move |client| serve(s3, &client))?;
        Ok(Self { listener, bucket: s3.access().bucket.clone() })
    }

    /// `sink.endpoint_url`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        self.listener.endpoint()
    }

    /// A folder of the bucket, as the product's configuration has it.
    #[must_use]
    pub fn sink(&self, prefix: &str) -> SinkKind {
        SinkKind::Gcs(GcsConfig {
            bucket: self.bucket.clone(),
            prefix: prefix.to_owned(),
            endpoint_url: Some(self.endpoint_url()),
            credentials: GcsCredentials::Anonymous,
        })
    }
}

/// Answers one request and closes.
fn serve(s3: &S3, client: &TcpStream) -> anyhow::Result<()> {
    client.set_read_timeout(Some(REQUEST_LIMIT))?;
    let request = read(client)?;
    let is_head = request.method == Method::HEAD;
    let (status, headers, body) =
        translate(s3, request).unwrap_or_else(|error| (502, Vec::new(), format!("{error:#}").into_bytes()));
    let mut answer = format!("HTTP/1.1 {status} -\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(answer, "{name}: {value}\r\n")?;
    }
    let mut client = client;
    if !is_head {
        write!(answer, "content-length: {}\r\n", body.len())?;
    }
    client.write_all(format!("{answer}\r\n").as_bytes())?;
    if !is_head {
        client.write_all(&body)?;
    }
    Ok(())
}

/// Reads a request whole.
fn read(client: &TcpStream) -> anyhow::Result<Request> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().context("no method")?.parse()?;
    let target = words.next().context("no target")?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(Ok(0), |(_, value)| value.parse())?;
    ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request { method, target, headers, body })
}

/// Status, headers and body of an answer.
type Answer = (u16, Vec<(String, String)>, Vec<u8>);

/// Asks the S3 server the same.
fn translate(s3: &S3, request: Request) -> anyhow::Result<Answer> {
    let Request { method, target, headers, body } = request;
    let url = reqwest::Url::parse(&format!("http://gcs{target}"))?;
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let path = url.path().trim_start_matches('/');
    let key = path.strip_prefix(&s3.access().bucket).context("another bucket")?.trim_start_matches('/');
    let is_head = method == Method::HEAD;
    let signed = s3.signed(method.clone(), key, &query)?;
    let mut outgoing = reqwest::Client::new().request(method, signed).timeout(REQUEST_LIMIT).body(body);
    for (name, value) in headers {
        if name == "x-goog-if-generation-match" {
            ensure!(value == "0", "only what is absent can be asked for");
            outgoing = outgoing.header("if-none-match", "*");
        } else if REQUEST_HEADERS.contains(&name.as_str()) {
            outgoing = outgoing.header(name, value);
        }
    }
    runtime()?.block_on(async {
        let answer = outgoing.send().await?;
        let status = answer.status().as_u16();
        let mut headers: Vec<(String, String)> = ANSWER_HEADERS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), answer.headers().get(*name)?.to_str().ok()?.to_owned())))
            .collect();
        if is_head && let Some(length) = answer.headers().get("content-length") {
            headers.push(("content-length".to_owned(), length.to_str()?.to_owned()));
        }
        Ok((status, headers, answer.bytes().await?.to_vec()))
    })
}
