//! Requests of WebHDFS: namenodes in turn, redirects to datanodes by hand, exceptions as errors of a store.
//!
//! No address ever gets into a message: it carries the user and the token.

use std::{
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use object_store::{PutPayload, Result, path::Path};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use serde_json::Value;

use crate::{
    config::Secret,
    error::PipelineError,
    store::hadoop::{self, Complaint},
};

/// A namenode that takes no connection for this long is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that says nothing for this long hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest answer that is not a file's content: a batch of a listing has 1,000 entries of half a KiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What stays as it is in an address: everything else, `%` above all, is escaped once more.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'=').remove(b'~');

/// Names and values behind the `?`.
type Parameters<'a> = &'a [(&'a str, &'a str)];

/// A client of one cluster.
pub(super) struct WebClient {
    /// Connections.
    http: reqwest::Client,
    /// `http://namenode:9870`; at least one.
    urls: Vec<String>,
    /// The one that answered last.
    active: AtomicUsize,
    /// `user.name` or `delegation`.
    credentials: Option<(&'static str, Secret)>,
}

impl fmt::Debug for WebClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WebClient").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl WebClient {
    /// Connects when it is first used.
    pub(super) fn new(
        urls: &[String],
        user: Option<&str>,
        delegation_token: Option<&Secret>,
        ca_file: Option<&PathBuf>,
    ) -> Result<Self, PipelineError> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .http1_only();
        if let Some(file) = ca_file {
            let explain = |error: Box<dyn std::error::Error + Send + Sync>| {
                PipelineError::stop(format!("sink.ca_file {}: not a file of certificates in PEM", file.display()))
                    .because(error)
            };
            let text = std::fs::read(file).map_err(|error| explain(error.into()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&text).map_err(|error| explain(error.into()))?;
            if certificates.is_empty() {
                return Err(explain("it has none".into()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder
            .build()
            .map_err(|error| PipelineError::stop("sink.url: the HTTP client cannot be set up").because(error))?;
        let of_process = || ["HADOOP_USER_NAME", "USER"].into_iter().find_map(|name| std::env::var(name).ok());
        let credentials = match delegation_token {
            Some(token) => Some(("delegation", token.clone())),
            None => user.map(str::to_owned).or_else(of_process).map(|user| ("user.name", Secret::new(user))),
        };
        Ok(Self { http, urls: urls.to_vec(), active: AtomicUsize::new(0), credentials })
    }

    /// An operation that the namenode does alone.
    pub(super) async fn ask(
        &self,
        method: Method,
        operation: &str,
        path: &Path,
        more: Parameters<'_>,
    ) -> Result<Value> {
        let response = self.namenode(method, operation, path, more).await?;
        if response.status() != StatusCode::OK {
            return Err(failed(path, response).await);
        }
        let body = bounded(path, response).await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .map_err(|_| hadoop::error(Complaint::Protocol, path, "the answer is not JSON, so this is not WebHDFS"))
    }

    /// Sends bytes to the datanode that the namenode names.
    pub(super) async fn send(
        &self,
        method: Method,
        operation: &str,
        path: &Path,
        more: Parameters<'_>,
        bytes: &PutPayload,
    ) -> Result<()> {
        let datanode = self.datanode(method.clone(), operation, path, more).await?;
        let chunks: Vec<_> = bytes.iter().cloned().map(Ok::<_, std::convert::Infallible>).collect();
        let request = self
            .http
            .request(method, datanode)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, bytes.content_length())
            .body(reqwest::Body::wrap_stream(futures::stream::iter(chunks)));
        let response = request.send().await.map_err(|error| transport(path, error))?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            _ => Err(failed(path, response).await),
        }
    }

    /// The content of a file from the datanode that the namenode names.
    pub(super) async fn open(&self, path: &Path, more: Parameters<'_>) -> Result<Response> {
        let datanode = self.datanode(Method::GET, "OPEN", path, more).await?;
        let response = self.http.get(datanode).send().await.map_err(|error| transport(path, error))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(failed(path, response).await),
        }
    }

    /// Where the namenode sends us.
    async fn datanode(&self, method: Method, operation: &str, path: &Path, more: Parameters<'_>) -> Result<url::Url> {
        let wrong = |what: &str| hadoop::error(Complaint::Protocol, path, what);
        let response = self.namenode(method, operation, path, more).await?;
        let asked_by = response.url().clone();
        let location = match response.status() {
            StatusCode::TEMPORARY_REDIRECT => {
                let header = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                header.ok_or_else(|| wrong("a redirect to nowhere"))?.to_owned()
            }
            _ => return Err(failed(path, response).await),
        };
        let url = asked_by.join(&location).map_err(|_| wrong("a redirect to what is no address"))?;
        if asked_by.scheme() == "https" && url.scheme() != "https" {
            return Err(wrong("the namenode redirects from https to plain http, where the token could be read"));
        }
        Ok(url)
    }

    /// Asks the namenode that answered last, and the others when it is away or a standby. Nothing was done then.
    async fn namenode(&self, method: Method, operation: &str, path: &Path, more: Parameters<'_>) -> Result<Response> {
        let first = self.active.load(Ordering::Relaxed);
        let mut last = None;
        for round in 0..self.urls.len() {
            let index = (first + round) % self.urls.len();
            let Some(base) = self.urls.get(index) else { continue };
            let request = self.http.request(method.clone(), self.address(base, operation, path, more));
            // An empty body needs its length said.
            let request = if method == Method::GET { request } else { request.header(CONTENT_LENGTH, 0) };
            match request.send().await {
                Ok(response) if response.status() == StatusCode::FORBIDDEN => {
                    let error = failed(path, response).await;
                    if hadoop::complaint(&error) != Some(Complaint::Standby) {
                        return Err(error);
                    }
                    last = Some(error);
                }
                Ok(response) => {
                    self.active.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) if error.is_connect() => last = Some(transport(path, error)),
                Err(error) => return Err(transport(path, error)),
            }
        }
        Err(last.unwrap_or_else(|| hadoop::error(Complaint::Refused, path, "sink.url names no namenode")))
    }

    /// The address of an operation.
    fn address(&self, base: &str, operation: &str, path: &Path, more: Parameters<'_>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("op", operation).extend_pairs(more);
        if let Some((name, value)) = &self.credentials {
            query.append_pair(name, value.reveal());
        }
        format!("{base}/webhdfs/v1/{}?{}", utf8_percent_encode(path.as_ref(), PATH), query.finish())
    }
}

/// A request that got no answer.
pub(super) fn transport(path: &Path, error: reqwest::Error) -> object_store::Error {
    let error = error.without_url();
    let text = crate::error::full_message(&error);
    let complaint = if text.contains("dns error") || text.contains("failed to lookup address") {
        Complaint::UnknownHost
    } else if text.contains("certificate") {
        Complaint::Certificate
    } else if text.contains("invalid HTTP version") {
        // Hadoop's RPC port answers an HTTP request so.
        Complaint::Protocol
    } else if error.is_connect() {
        Complaint::Unreachable
    } else {
        Complaint::Other
    };
    hadoop::error(complaint, path, text)
}

/// An answer that is not the one that was hoped for.
async fn failed(path: &Path, response: Response) -> object_store::Error {
    let status = response.status();
    let body = match bounded(path, response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    let exception = serde_json::from_slice::<Value>(&body).ok().and_then(|body| {
        let exception = body.get("RemoteException")?;
        let text = |name: &str| exception.get(name).and_then(Value::as_str);
        Some((text("exception")?.to_owned(), text("message").unwrap_or_default().to_owned()))
    });
    if let Some((class, message)) = exception {
        return hadoop::exception(&class, &message, path);
    }
    let complaint = match status {
        StatusCode::UNAUTHORIZED => Complaint::Identity,
        StatusCode::FORBIDDEN => Complaint::Permission,
        _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Complaint::Other,
        _ => Complaint::Protocol,
    };
    hadoop::error(complaint, path, format!("HTTP status {status}"))
}

/// A body, up to a limit.
async fn bounded(path: &Path, mut response: Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(path, error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(hadoop::error(Complaint::Protocol, path, "the answer is longer than WebHDFS makes them"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_escapes_escapes_and_a_debug_text_has_no_token() {
        let token = Secret::new("T0ken&x=1");
        let client = WebClient::new(&["http://n:9870".into()], Some("me"), Some(&token), None).unwrap();
        let path = Path::parse("lake/a=D%2FE/ü b.parquet").unwrap();
        assert_eq!(
            client.address("http://n:9870", "RENAME", &path, &[("destination", "/lake/a=D%2FE")]),
            "http://n:9870/webhdfs/v1/lake/a=D%252FE/%C3%BC%20b.parquet?op=RENAME&destination=%2Flake%2Fa%3DD%252FE&delegation=T0ken%26x%3D1"
        );
        assert!(!format!("{client:?}").contains("T0ken"));
    }

    #[tokio::test]
    async fn nobody_there_is_told_without_the_address() {
        let client = WebClient::new(&["http://127.0.0.1:9".into()], Some("somebody"), None, None).unwrap();
        let error = client.ask(Method::GET, "GETFILESTATUS", &Path::from("a"), &[]).await.unwrap_err();
        assert_eq!(hadoop::complaint(&error), Some(Complaint::Unreachable));
        let text = crate::error::full_message(&error);
        assert!(!text.contains("somebody") && !text.contains("op="), "{text}");
    }

    /// A server that gives the same answer to every request.
    async fn server(answer: String) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    /// An answer with a status and a body.
    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_standby_and_one_that_is_away_are_passed_over_and_the_active_one_is_remembered() {
        let exception = r#"{"RemoteException":{"exception":"StandbyException","message":"state standby"}}"#;
        let standby = server(answer("403 Forbidden", exception)).await;
        let active = server(answer("200 OK", r#"{"boolean":true}"#)).await;
        let urls = ["http://127.0.0.1:9".to_owned(), standby.clone(), active];
        let client = WebClient::new(&urls, Some("me"), None, None).unwrap();
        let path = Path::from("a");
        assert_eq!(client.ask(Method::PUT, "MKDIRS", &path, &[]).await.unwrap(), serde_json::json!({"boolean": true}));
        assert_eq!(client.active.load(Ordering::Relaxed), 2);
        let alone = WebClient::new(&[standby], Some("me"), None, None).unwrap();
        let error = alone.ask(Method::PUT, "MKDIRS", &path, &[]).await.unwrap_err();
        assert_eq!(hadoop::complaint(&error), Some(Complaint::Standby));
    }

    #[tokio::test]
    async fn what_is_no_webhdfs_and_what_wants_kerberos_is_told() {
        let path = Path::from("a");
        for (status, body, wanted) in [
            ("200 OK", "<html>", Complaint::Protocol),
            ("404 Not Found", "nothing here", Complaint::Protocol),
            ("401 Unauthorized", "", Complaint::Identity),
            ("502 Bad Gateway", "", Complaint::Other),
        ] {
            let client = WebClient::new(&[server(answer(status, body)).await], None, None, None).unwrap();
            let error = client.ask(Method::GET, "GETFILESTATUS", &path, &[]).await.unwrap_err();
            assert_eq!(hadoop::complaint(&error), Some(wanted), "{status}");
        }
    }
}
