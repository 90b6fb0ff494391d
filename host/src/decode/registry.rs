//! A client of a schema registry, by the REST interface that Confluent's has and others copy.
//!
//! Comes in: numbers of schemas. Goes out: their texts with those that they refer to, or that the registry has none of that
//! number. Promises: a registry that is away, slow or busy is waited for, and nothing is concluded from its silence; one that
//! refuses us stops the pipeline; what was asked for once is not asked for again for each record. No secret gets into a
//! message.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use crate::{
    config::RegistryConfig,
    error::{PipelineError, full_message},
    telemetry::metrics::Metrics,
};

/// Longest answer: a schema, of which large ones have some hundred KiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Most schemas that are kept; at some KiB each they cost a few MiB.
const SCHEMAS_MAX: usize = 1_000;

/// So long a schema that the registry did not have is not asked for again: records of a producer gone wrong come in
/// thousands, a schema that is registered late comes within a minute or so.
const UNKNOWN_AGE_MAX: Duration = Duration::from_secs(30);

/// Most schemas that one refers to, directly or not.
const REFERENCES_MAX: usize = 200;

/// The first pause after a failure; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// The longest pause: so late a registry that is back is noticed.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A schema of the registry.
#[derive(Debug)]
pub(super) struct Registered {
    /// `AVRO`, `PROTOBUF` or `JSON`.
    pub(super) kind: String,
    /// Its text.
    pub(super) text: String,
    /// Those that it refers to, each behind those that it refers to itself.
    pub(super) references: Vec<Reference>,
}

impl Registered {
    /// Refuses a schema of another kind than that of a format of values.
    pub(super) fn expect(&self, kind: &str, format: &str) -> Result<(), Fault> {
        if self.kind == kind {
            return Ok(());
        }
        let message = format!("the registry has it as {}, and source.value_format is {format}", self.kind);
        Err(Fault { code: "wrong-schema-type", message })
    }
}

/// A schema that another one refers to.
#[derive(Debug)]
pub(super) struct Reference {
    /// The name by which it does: a type of Avro, an import of Protobuf.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

/// What the registry says about a number.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The schema.
    Known(Arc<Registered>),
    /// It has none, in words.
    Unknown(Arc<str>),
}

/// A client; its clones share connections and what they have learned.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

/// What the clones share.
struct Inner {
    /// Where it is, and who we are.
    config: RegistryConfig,
    /// Connections.
    http: reqwest::Client,
    /// The address that answered last.
    active: AtomicUsize,
    /// What was asked for, and when.
    known: Mutex<HashMap<u32, (Instant, Answer)>>,
    /// Ends the waiting.
    stop: CancellationToken,
    /// Counts what was tried again.
    metrics: Metrics,
}

/// Why there is no answer.
enum Failure {
    /// It may pass.
    Passing(String),
    /// It has not what was asked for.
    Missing(String),
    /// A person has to act.
    Final(PipelineError),
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Registry").field("urls", &self.0.config.urls).finish_non_exhaustive()
    }
}

impl Registry {
    /// Connects when it is first used. Fails when a file of certificates cannot be used.
    pub fn new(config: &RegistryConfig, stop: CancellationToken, metrics: Metrics) -> Result<Self, PipelineError> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timeout)
            .timeout(config.timeout);
        let explain = |path: &std::path::Path, error: Box<dyn std::error::Error + Send + Sync>| {
            PipelineError::stop(format!("source.schema_registry.tls: {} cannot be used", path.display())).because(error)
        };
        if let Some(file) = &config.tls.ca_file {
            let text = std::fs::read(file).map_err(|error| explain(file, error.into()))?;
            let found = reqwest::Certificate::from_pem_bundle(&text).map_err(|error| explain(file, error.into()))?;
            if found.is_empty() {
                return Err(explain(file, "it has no certificate in PEM".into()));
            }
            builder = builder.tls_certs_merge(found);
        }
        if let Some((cert, key)) = &config.tls.identity {
            let mut text = std::fs::read(cert).map_err(|error| explain(cert, error.into()))?;
            text.push(b'\n');
            text.extend(std::fs::read(key).map_err(|error| explain(key, error.into()))?);
            builder =
                builder.identity(reqwest::Identity::from_pem(&text).map_err(|error| explain(cert, error.into()))?);
        }
        let http = builder.build().map_err(|error| {
            PipelineError::stop("source.schema_registry: the HTTP client cannot be set up").because(error)
        })?;
        let (active, known) = (AtomicUsize::new(0), Mutex::default());
        Ok(Self(Arc::new(Inner { config: config.clone(), http, active, known, stop, metrics })))
    }

    /// Asks whether it is there and lets us in; does not wait for it.
    pub async fn check(&self) -> Result<(), PipelineError> {
        match self.ask("/schemas/types").await {
            // Old ones do not know the question; that they say so in their words is enough.
            Ok(_) | Err(Failure::Missing(_)) => Ok(()),
            Err(Failure::Passing(words)) => Err(PipelineError::retry(words)),
            Err(Failure::Final(error)) => Err(error),
        }
    }

    /// The schema of a number. Waits while the registry is away.
    pub(super) async fn schema(&self, id: u32) -> Result<Answer, PipelineError> {
        if let Some((_, answer)) = self.known().get(&id).filter(|(since, answer)| is_fresh(*since, answer)) {
            return Ok(answer.clone());
        }
        let answer = match self.whole(id).await {
            Ok(registered) => Answer::Known(Arc::new(registered)),
            Err(Failure::Missing(words)) => Answer::Unknown(format!("schema {id}: {words}").into()),
            Err(Failure::Passing(words)) => return Err(PipelineError::restart(words)),
            Err(Failure::Final(error)) => return Err(error),
        };
        let mut known = self.known();
        if known.len() >= SCHEMAS_MAX {
            known.retain(|_, (since, answer)| is_fresh(*since, answer));
        }
        if known.len() >= SCHEMAS_MAX {
            known.clear();
        }
        known.insert(id, (Instant::now(), answer.clone()));
        Ok(answer)
    }

    /// What is known; a panic elsewhere leaves nothing half done in it.
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u32, (Instant, Answer)>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A schema, and those that it refers to.
    async fn whole(&self, id: u32) -> Result<Registered, Failure> {
        let answer = self.insist(&format!("/schemas/ids/{id}")).await?;
        let kind = answer.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO").to_owned();
        let text = schema_text(&answer)?;
        let (mut references, mut seen) = (Vec::new(), HashSet::new());
        // Those that are still to be asked for, and the texts of those whose own references come first.
        let mut waiting: Vec<Waiting> = Vec::new();
        push_references(&answer, &mut waiting);
        while let Some(next) = waiting.pop() {
            match next {
                Waiting::Known(reference) => references.push(reference),
                Waiting::Path(_, path) if !seen.insert(path.clone()) => {}
                Waiting::Path(name, path) => {
                    if seen.len() > REFERENCES_MAX {
                        let words = format!("it refers to more than {REFERENCES_MAX} schemas");
                        return Err(Failure::Missing(words));
                    }
                    let answer = self.insist(&path).await?;
                    waiting.push(Waiting::Known(Reference { name, text: schema_text(&answer)? }));
                    push_references(&answer, &mut waiting);
                }
            }
        }
        Ok(Registered { kind, text, references })
    }

    /// Asks until there is an answer, or the process stops.
    async fn insist(&self, path: &str) -> Result<Value, Failure> {
        let mut pause = PAUSE_MIN;
        loop {
            let asked = tokio::select! {
                asked = self.ask(path) => asked,
                () = self.0.stop.cancelled() => Err(Failure::Passing("stopped".to_owned())),
            };
            let words = match asked {
                Err(Failure::Passing(words)) if !self.0.stop.is_cancelled() => words,
                other => return other,
            };
            self.0.metrics.retried("schema_registry");
            tracing::warn!(path, pause = ?pause, "{words}; the lane waits, and nothing is lost");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = self.0.stop.cancelled() => {
                    return Err(Failure::Passing("stopped while the schema registry was away".to_owned()));
                }
            }
        }
    }

    /// Asks each address once, from the one that answered last on.
    async fn ask(&self, path: &str) -> Result<Value, Failure> {
        let Inner { config, active, .. } = &*self.0;
        let first = active.load(Ordering::Relaxed);
        let mut failure = Failure::Passing("source.schema_registry has no address".to_owned());
        for step in 0..config.urls.len() {
            let number = (first + step) % config.urls.len();
            let Some(url) = config.urls.get(number) else { continue };
            match self.ask_one(url, path).await {
                Err(passing @ Failure::Passing(_)) => failure = passing,
                other => {
                    active.store(number, Ordering::Relaxed);
                    return other;
                }
            }
        }
        Err(failure)
    }

    /// One request.
    async fn ask_one(&self, url: &str, path: &str) -> Result<Value, Failure> {
        let Inner { config, http, .. } = &*self.0;
        let mut request = http.get(format!("{url}{path}"));
        if let Some(user) = &config.username {
            request = request.basic_auth(user, config.password.as_ref().map(crate::config::Secret::reveal));
        }
        if let Some(token) = &config.bearer_token {
            request = request.bearer_auth(token.reveal());
        }
        let away = |error: reqwest::Error| {
            let words = full_message(&error.without_url());
            // Waiting mends no certificate.
            if words.contains("certificate") {
                return Failure::Final(PipelineError::stop(format!(
                    "the schema registry {url} and we do not accept each other's certificates; check source.schema_registry.tls: {words}"
                )));
            }
            Failure::Passing(format!("the schema registry {url} does not answer: {words}"))
        };
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        let body = body(response).await.map_err(away)?;
        let answer: Option<Value> = body.and_then(|body| serde_json::from_slice(&body).ok());
        let stop = |words: &str| Failure::Final(PipelineError::stop(format!("the schema registry {url} {words}")));
        match (status, answer) {
            (StatusCode::OK, Some(answer)) => Ok(answer),
            (StatusCode::OK, None) => {
                Err(stop("answers with something that is not JSON, or too long; is source.schema_registry.url right?"))
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Err(stop(&format!(
                "does not let us in ({status}); check username, password and bearer_token of source.schema_registry"
            ))),
            // What is no registry at all says 404 to everything, and that must not condemn records.
            (StatusCode::NOT_FOUND, Some(answer)) if answer.get("error_code").is_some() => {
                Err(Failure::Missing(format!("the schema registry {url} has nothing at {path}")))
            }
            (StatusCode::NOT_FOUND, _) => Err(stop(
                "says 404 in words that are not a registry's; is the path in source.schema_registry.url right?",
            )),
            (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS, _) => {
                Err(Failure::Passing(format!("the schema registry {url} is busy ({status})")))
            }
            (status, _) if status.is_server_error() => {
                Err(Failure::Passing(format!("the schema registry {url} fails ({status})")))
            }
            (status, _) => Err(stop(&format!("answers {status} at {path}; is source.schema_registry.url right?"))),
        }
    }
}

/// What is left to do for references.
enum Waiting {
    /// To be asked for under a path; its name.
    Path(String, String),
    /// To be kept, once its own references are.
    Known(Reference),
}

/// Notes the references of an answer, so that the first is asked for first.
fn push_references(answer: &Value, waiting: &mut Vec<Waiting>) {
    for reference in answer.get("references").and_then(Value::as_array).into_iter().flatten().rev() {
        let subject = reference.get("subject").and_then(Value::as_str).unwrap_or_default();
        let version = reference.get("version").and_then(Value::as_i64).unwrap_or(-1);
        let subject = utf8_percent_encode(subject, NON_ALPHANUMERIC);
        let name = reference.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        waiting.push(Waiting::Path(name, format!("/subjects/{subject}/versions/{version}")));
    }
}

/// The text of a schema in an answer.
fn schema_text(answer: &Value) -> Result<String, Failure> {
    let text = answer.get("schema").and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| Failure::Final(PipelineError::stop("the schema registry's answer has no schema in it")))
}

/// Whether what was learned still counts: schemas never change, what is missing may come.
fn is_fresh(since: Instant, answer: &Answer) -> bool {
    matches!(answer, Answer::Known(_)) || since.elapsed() < UNKNOWN_AGE_MAX
}

/// The bytes of an answer; `None` where it is too long.
async fn body(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        config::{ClientTls, Secret},
        error::Verdict,
    };

    /// A registry that gives these answers, one after the other and the last one for ever; how many it gave, and the last request.
    async fn answers(all: &'static [(u16, &'static str)]) -> (String, Arc<AtomicUsize>, Arc<Mutex<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (given, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
        let (count, request) = (Arc::clone(&given), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let length = stream.read(&mut bytes).await.unwrap();
                *request.lock().unwrap() = String::from_utf8_lossy(&bytes[..length]).into_owned();
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (status, body) = all[number.min(all.len() - 1)];
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, given, asked)
    }

    /// A client of it.
    fn client(url: &str) -> Registry {
        let config = RegistryConfig {
            urls: vec![url.to_owned()],
            username: Some("kim".to_owned()),
            password: Some(Secret::new("geheim-4711".to_owned())),
            bearer_token: None,
            tls: ClientTls::default(),
            timeout: Duration::from_secs(5),
        };
        Registry::new(&config, CancellationToken::new(), Metrics::detached()).unwrap()
    }

    #[tokio::test]
    async fn a_registry_that_is_busy_is_asked_again_and_what_it_said_is_kept() {
        let (url, given, asked) = answers(&[(503, ""), (429, "{}"), (200, r#"{"schema": "\"string\""}"#)]).await;
        let registry = client(&url);
        for _ in 0..3 {
            let Answer::Known(schema) = registry.schema(7).await.unwrap() else { panic!("not known") };
            assert_eq!((schema.kind.as_str(), schema.text.as_str()), ("AVRO", "\"string\""));
        }
        assert_eq!(given.load(Ordering::SeqCst), 3);
        let asked = asked.lock().unwrap().clone();
        assert!(asked.starts_with("GET /schemas/ids/7 "), "{asked}");
        assert!(asked.contains("authorization: Basic a2ltOmdlaGVpbS00NzEx"), "{asked}");
    }

    #[tokio::test]
    async fn what_it_has_not_is_no_failure_and_asked_for_once() {
        let (url, given, _) = answers(&[(404, r#"{"error_code": 40403, "message": "Schema not found"}"#)]).await;
        let registry = client(&url);
        for _ in 0..2 {
            let Answer::Unknown(words) = registry.schema(7).await.unwrap() else { panic!("known") };
            assert!(words.starts_with("schema 7: the schema registry"), "{words}");
        }
        assert_eq!(given.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn whoever_is_no_registry_or_lets_us_not_in_ends_the_run() {
        for (answer, words) in [
            (&[(401, "{}")][..], "check username, password and bearer_token"),
            (&[(404, "<html>")], "is the path in source.schema_registry.url right?"),
            (&[(200, "<html>")], "something that is not JSON"),
            (&[(301, "")], "is source.schema_registry.url right?"),
        ] {
            let (url, _, _) = answers(answer).await;
            let error = client(&url).schema(7).await.unwrap_err();
            let message = error.full_message();
            assert!(error.verdict() == Verdict::Stop && message.contains(words), "{message}");
            assert!(!message.contains("geheim"), "{message}");
        }
    }
}
