//! Tokens for SASL's OAUTHBEARER, for every client of Kafka in this process.
//!
//! Comes in: what `extra_config` says ([`OauthConfig`]). Goes out: a token each time librdkafka asks for one, which it does at
//! the start and when four fifths of a token's life are over. Promises: an endpoint that is away is asked again (by
//! librdkafka, every 10 s), and nothing is concluded from its silence; one that refuses us is told from it ([`REFUSED`]); no
//! secret gets into a message.

use std::{
    error::Error,
    ffi::{CStr, CString, c_char},
    ptr::NonNull,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rdkafka::{
    bindings as native,
    client::{Client, ClientContext, OAuthToken},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use url::form_urlencoded;

use crate::{
    config::{AssertionConfig, Grant, JWT_BEARER, OauthConfig, OidcConfig, Secret},
    error::{PipelineError, full_message},
};

/// What messages have in them where a person has to act.
pub const REFUSED: &str = "the token endpoint refuses this client";

/// One request. librdkafka's thread waits for it, which calls nobody else back meanwhile.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer, and longest file that is read: tokens have some KiB.
const BYTES_MAX: usize = 256 << 10;

/// What librdkafka is told in place of a token that it was handed with its extensions.
const HANDED_OVER: &str = "it was handed over with its extensions";

/// How long librdkafka's thread waits for [`Tokens::attach`], which follows at once where a client is made.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Room for librdkafka's words.
const WORDS_BYTES: usize = 512;

/// Gets tokens; the context of clients that need nothing else from librdkafka.
#[derive(Clone, Debug)]
pub struct Tokens(Option<Source>);

/// Where they come from.
#[derive(Clone, Debug)]
struct Source {
    /// What is asked for.
    config: OauthConfig,
    /// Connections.
    http: reqwest::Client,
    /// Where requests run.
    runtime: Handle,
    /// Who is handed tokens with extensions, which the binding has no place for.
    client: Arc<OnceLock<NativeClient>>,
    /// Until when the token that was handed over last need not be replaced.
    fresh_until: Arc<Mutex<Option<Instant>>>,
}

/// librdkafka's handle of a client.
#[derive(Debug)]
struct NativeClient(NonNull<native::rd_kafka_t>);

#[expect(
    unsafe_code,
    reason = "librdkafka's handles may be used by any thread (INTRODUCTION.md, Threads and callbacks)"
)]
// SAFETY: see the reason.
unsafe impl Send for NativeClient {}

#[expect(unsafe_code, reason = "the same")]
// SAFETY: see the reason.
unsafe impl Sync for NativeClient {}

/// A token as librdkafka takes it.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    /// Its text.
    text: String,
    /// Whose it is.
    principal: String,
    /// When it ends, in milliseconds since 1970.
    lifetime_ms: i64,
}

impl Tokens {
    /// Connects when librdkafka asks for the first token. Fails where `extra_config` is wrong, and outside of a runtime.
    pub fn new(extra_config: &[(String, Secret)]) -> Result<Self, PipelineError> {
        let config =
            OauthConfig::of(extra_config).map_err(|message| PipelineError::stop(format!("extra_config: {message}")))?;
        let Some(config) = config else { return Ok(Self(None)) };
        let runtime = Handle::try_current()
            .map_err(|error| PipelineError::stop("tokens are fetched by the runtime").because(error))?;
        let (client, fresh_until) = (Arc::default(), Arc::default());
        Ok(Self(Some(Source { http: http_client(&config)?, config, runtime, client, fresh_until })))
    }

    /// Says which client these tokens are for; at once after it is made, and before it goes away these are not used again.
    pub fn attach<C: ClientContext>(&self, client: &Client<C>) {
        if let (Some(source), Some(native)) = (&self.0, NonNull::new(client.native_ptr())) {
            let _ = source.client.set(NativeClient(native));
        }
    }
}

impl ClientContext for Tokens {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let Some(source) = self.0.clone() else {
            return Err("sasl.mechanism is not OAUTHBEARER".into());
        };
        let extensions = match &source.config {
            OauthConfig::Oidc(config) => config.extensions.as_slice(),
            OauthConfig::Unsecured { .. } => &[],
        };
        if extensions.is_empty() {
            let Token { text, principal, lifetime_ms } = source.wait_for_token()?;
            return Ok(OAuthToken { token: text, principal_name: principal, lifetime_ms });
        }
        // librdkafka takes this for a failure, keeps the token, and asks again every 10 s.
        if !source.is_fresh() {
            source.hand_over(&source.wait_for_token()?, extensions)?;
        }
        Err(HANDED_OVER.into())
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if !is_handed_over(reason) {
            tracing::warn!(%error, reason, "Kafka: librdkafka goes on trying");
        }
    }
}

/// Whether librdkafka tells of a token that it has.
#[must_use]
pub fn is_handed_over(reason: &str) -> bool {
    reason.contains(HANDED_OVER)
}

/// The client that asks the endpoint.
fn http_client(config: &OauthConfig) -> Result<reqwest::Client, PipelineError> {
    // A redirection could lead a secret elsewhere.
    let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(REQUEST_TIMEOUT);
    if let OauthConfig::Oidc(config) = config {
        let OidcConfig { ca_file, ca_pem, .. } = config.as_ref();
        let cannot = |name: &str, error: Box<dyn Error + Send + Sync>| {
            PipelineError::stop(format!("extra_config: {name} cannot be used")).because(error)
        };
        let mut texts = Vec::new();
        if let Some(path) = ca_file {
            texts.push((
                "https.ca.location",
                std::fs::read(path).map_err(|error| cannot("https.ca.location", error.into()))?,
            ));
        }
        texts.extend(ca_pem.as_ref().map(|text| ("https.ca.pem", text.clone().into_bytes())));
        for (name, text) in texts {
            let found = reqwest::Certificate::from_pem_bundle(&text).map_err(|error| cannot(name, error.into()))?;
            if found.is_empty() {
                return Err(cannot(name, "it has no certificate in PEM".into()));
            }
            builder = builder.tls_certs_merge(found);
        }
    }
    builder.build().map_err(|error| PipelineError::stop("the client for tokens cannot be set up").because(error))
}

impl Source {
    /// A token, from a thread that may wait.
    fn wait_for_token(&self) -> Result<Token, String> {
        let (sender, answer) = mpsc::sync_channel(1);
        let source = self.clone();
        // This is a thread of librdkafka, or one that a runtime gave away: neither may be turned into one of the runtime's.
        self.runtime.spawn(async move {
            let _ = sender.send(source.token().await);
        });
        let answer = answer.recv_timeout(2 * REQUEST_TIMEOUT);
        answer.unwrap_or_else(|_| Err("the request for a token ended without an answer".to_owned()))
    }

    /// Whether the token that was handed over last has a fifth of its life left.
    fn is_fresh(&self) -> bool {
        let until = *self.fresh_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Hands a token to librdkafka.
    #[expect(unsafe_code, reason = "the safe crate has no place for extensions")]
    fn hand_over(&self, token: &Token, extensions: &[(String, String)]) -> Result<(), String> {
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        let client = loop {
            match self.client.get() {
                Some(client) => break client.0,
                None if Instant::now() > deadline => return Err("the client is not there yet".to_owned()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let (value, principal) = (text(&token.text)?, text(&token.principal)?);
        let pairs = extensions.iter().flat_map(|(name, value)| [text(name), text(value)]);
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*const c_char> = pairs.iter().map(|text| text.as_ptr()).collect();
        let mut words = [0; WORDS_BYTES];
        // SAFETY: librdkafka calls us only while the client lives; all texts end with a zero byte, outlive the call, and are
        // copied; their number and the length of `words` are what is said.
        let (code, words) = unsafe {
            let code = native::rd_kafka_oauthbearer_set_token(
                client.as_ptr(),
                value.as_ptr(),
                token.lifetime_ms,
                principal.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len(),
                words.as_mut_ptr(),
                words.len(),
            );
            (code, CStr::from_ptr(words.as_ptr()).to_string_lossy())
        };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            // It may have the token in its words.
            return Err(format!("librdkafka does not take the token: {}", words.replace(&token.text, "***")));
        }
        let now_ms = i64::try_from(now_seconds()).unwrap_or(i64::MAX).saturating_mul(1_000);
        let left_ms = u64::try_from(token.lifetime_ms.saturating_sub(now_ms)).unwrap_or(0);
        let fresh = Instant::now().checked_add(Duration::from_millis(left_ms / 5 * 4));
        *self.fresh_until.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// A token; why there is none, otherwise.
    async fn token(&self) -> Result<Token, String> {
        match &self.config {
            OauthConfig::Unsecured { principal, scope, life_seconds } => {
                Ok(unsecured(principal, scope, *life_seconds, now_seconds()))
            }
            OauthConfig::Oidc(config) => {
                let mut request = self
                    .http
                    .post(config.endpoint.clone())
                    .header("accept", "application/json")
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form(config)?);
                if let Grant::ClientCredentials { id, secret } = &config.grant {
                    request = request.basic_auth(id, Some(secret.reveal()));
                }
                let answer = self.answer(config, request).await?;
                token(&answer, config, now_seconds())
            }
        }
    }

    /// What the endpoint says.
    async fn answer(&self, config: &OidcConfig, request: reqwest::RequestBuilder) -> Result<Value, String> {
        let endpoint = &config.endpoint;
        let failed = |error: reqwest::Error| {
            format!("the token endpoint {endpoint} does not answer: {}", full_message(&error.without_url()))
        };
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(more) = answer.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&more);
            if bytes.len() > BYTES_MAX {
                return Err(format!("the token endpoint {endpoint} answers with more than {BYTES_MAX} bytes"));
            }
        }
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let mut words = format!("{endpoint} says {status}");
        for name in ["error", "error_description"] {
            if let Some(said) = value.get(name).and_then(Value::as_str) {
                words.push_str(": ");
                words.extend(said.chars().filter(|character| !character.is_control()).take(200));
            }
        }
        // Too many requests are none that a person has to look at.
        let is_final = status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429);
        Err(if is_final { format!("{REFUSED}: {words}") } else { format!("the token endpoint is not ready: {words}") })
    }
}

/// The body of a request.
fn form(config: &OidcConfig) -> Result<String, String> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    let assertion = match &config.grant {
        Grant::ClientCredentials { .. } => None,
        Grant::AssertionFile(path) => Some(read(path, "assertion.file")?),
        Grant::Assertion(assertion) => Some(signed(assertion, now_seconds())?),
    };
    match assertion {
        None => form.append_pair("grant_type", "client_credentials"),
        Some(assertion) => form.append_pair("grant_type", JWT_BEARER).append_pair("assertion", assertion.trim()),
    };
    if let Some(scope) = &config.scope {
        form.append_pair("scope", scope);
    }
    Ok(form.finish())
}

/// A file that is small, by the name of the property that names it.
fn read(path: &std::path::Path, property: &str) -> Result<String, String> {
    let text = std::fs::read(path)
        .map_err(|error| format!("sasl.oauthbearer.{property}: cannot read {}: {error}", path.display()))?;
    match String::from_utf8(text) {
        Ok(text) if text.len() <= BYTES_MAX => Ok(text),
        _ => Err(format!("sasl.oauthbearer.{property}: {} is no text of at most {BYTES_MAX} bytes", path.display())),
    }
}

/// A signed assertion (RFC 7523).
fn signed(config: &AssertionConfig, now: u64) -> Result<String, String> {
    let algorithm = if config.is_elliptic { Algorithm::ES256 } else { Algorithm::RS256 };
    let (mut header, mut payload) = (Header::new(algorithm), Map::new());
    if let Some(path) = &config.template_file {
        let wrong = |why: String| format!("sasl.oauthbearer.assertion.jwt.template.file: {}: {why}", path.display());
        let template: Value = serde_json::from_str(&read(path, "assertion.jwt.template.file")?)
            .map_err(|error| wrong(error.to_string()))?;
        if let Some(given) = template.get("header") {
            let mut given = given.clone();
            if let Some(given) = given.as_object_mut() {
                given.insert("alg".to_owned(), json!(algorithm));
            }
            header = serde_json::from_value(given).map_err(|error| wrong(error.to_string()))?;
        }
        if let Some(given) = template.get("payload").and_then(Value::as_object) {
            payload.clone_from(given);
        }
    }
    payload.insert("iat".to_owned(), json!(now));
    payload.insert("nbf".to_owned(), json!(now.saturating_sub(config.not_before_seconds.into())));
    payload.insert("exp".to_owned(), json!(now.saturating_add(config.expires_in_seconds.into())));
    if config.has_id {
        payload.insert("jti".to_owned(), json!(uuid::Uuid::now_v7().to_string()));
    }
    payload.extend(config.claims.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    let key = match &config.key {
        Ok(pem) => pem.reveal().to_owned(),
        Err(path) => read(path, "assertion.private.key.file")?,
    };
    let key = if config.is_elliptic {
        EncodingKey::from_ec_pem(key.as_bytes())
    } else {
        EncodingKey::from_rsa_pem(key.as_bytes())
    };
    let signed = key.and_then(|key| encode(&header, &payload, &key));
    signed.map_err(|error| format!("sasl.oauthbearer.assertion.private.key: no key of this algorithm in PEM: {error}"))
}

/// The token of an endpoint's answer.
fn token(answer: &Value, config: &OidcConfig, now: u64) -> Result<Token, String> {
    let endpoint = &config.endpoint;
    let text = answer
        .get("access_token")
        .and_then(Value::as_str)
        // A control character would end the token within SASL's message.
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| format!("the answer of the token endpoint {endpoint} has no access_token"))?;
    let claims = claims(text);
    // Tokens that are none of JSON say nothing themselves.
    let expires = claims.get("exp").and_then(Value::as_f64).or_else(|| {
        let seconds = answer.get("expires_in").and_then(Value::as_f64);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        seconds.map(|seconds| now as f64 + seconds)
    });
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let lifetime_ms = expires
        .filter(|expires| expires.is_finite())
        .map(|expires| (expires * 1_000.0) as i64)
        .ok_or_else(|| format!("neither the token of {endpoint} nor its answer says how long it holds"))?;
    if lifetime_ms <= i64::try_from(now).unwrap_or(i64::MAX).saturating_mul(1_000) {
        return Err(format!("the token of {endpoint} has expired already; does the clock of this machine go right?"));
    }
    let id = match &config.grant {
        Grant::ClientCredentials { id, .. } => id.as_str(),
        Grant::AssertionFile(_) | Grant::Assertion(_) => "unknown",
    };
    let principal = claims.get("sub").and_then(Value::as_str).unwrap_or(id).replace('\0', "");
    Ok(Token { text: text.to_owned(), principal, lifetime_ms })
}

/// What a token of JSON says; nothing where it is none. The broker is the one that checks it.
fn claims(token: &str) -> Value {
    let payload =
        token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

/// A token that nobody signs (RFC 7515, appendix A.5).
fn unsecured(principal: &str, scope: &[String], life_seconds: u32, now: u64) -> Token {
    let expires = now.saturating_add(life_seconds.into());
    let mut payload = json!({"sub": principal, "iat": now, "exp": expires});
    if let (false, Some(payload)) = (scope.is_empty(), payload.as_object_mut()) {
        payload.insert("scope".to_owned(), json!(scope));
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    Token {
        text: format!("{}.{}.", part(&json!({"alg": "none"})), part(&payload)),
        principal: principal.to_owned(),
        lifetime_ms: i64::try_from(expires).unwrap_or(i64::MAX).saturating_mul(1_000),
    }
}

/// Seconds since 1970.
fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client with a secret.
    fn config() -> OidcConfig {
        let grant = Grant::ClientCredentials { id: "lake".to_owned(), secret: Secret::new("geheim") };
        let endpoint = "http://localhost/token".parse().unwrap();
        OidcConfig {
            endpoint,
            grant,
            scope: Some("a b&c".to_owned()),
            extensions: Vec::new(),
            ca_file: None,
            ca_pem: None,
        }
    }

    /// A token with these claims.
    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn an_answer_becomes_a_token() {
        let text = jwt(&json!({"sub": "user-7", "exp": 2_000}));
        let found = token(&json!({"access_token": text, "expires_in": 5}), &config(), 1_000).unwrap();
        assert_eq!(found, Token { text, principal: "user-7".to_owned(), lifetime_ms: 2_000_000 });
        let opaque = token(&json!({"access_token": "abc", "expires_in": 5}), &config(), 1_000).unwrap();
        assert_eq!((opaque.principal.as_str(), opaque.lifetime_ms), ("lake", 1_005_000));
    }

    #[test]
    fn an_answer_without_a_token_that_holds_is_told() {
        let of = |answer: Value| token(&answer, &config(), 1_000).map(|token| token.text).unwrap_err();
        assert!(of(json!({})).ends_with("has no access_token"));
        assert!(of(json!({"access_token": "a\u{1}auth=b", "expires_in": 5})).ends_with("has no access_token"));
        assert!(of(json!({"access_token": "abc"})).contains("says how long it holds"));
        assert!(of(json!({"access_token": jwt(&json!({"exp": 999}))})).contains("has expired already"));
    }

    #[test]
    fn requests_are_forms() {
        let config = config();
        assert_eq!(form(&config).unwrap(), "grant_type=client_credentials&scope=a+b%26c");
        let missing = OidcConfig { grant: Grant::AssertionFile("/nowhere".into()), ..config };
        assert!(form(&missing).unwrap_err().starts_with("sasl.oauthbearer.assertion.file: cannot read /nowhere"));
    }

    #[test]
    fn tokens_that_nobody_signs_say_who_asks() {
        let found = unsecured("admin", &["a".to_owned()], 60, 1_000);
        assert_eq!(claims(&found.text), json!({"sub": "admin", "iat": 1_000, "exp": 1_060, "scope": ["a"]}));
        assert!(found.text.ends_with('.'));
    }

    #[test]
    fn assertions_need_a_key_of_their_algorithm() {
        let config = AssertionConfig {
            is_elliptic: false,
            key: Ok(Secret::new("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
            claims: vec![("sub", "lake".to_owned())],
            expires_in_seconds: 60,
            not_before_seconds: 10,
            has_id: true,
            template_file: None,
        };
        assert!(signed(&config, 1_000).unwrap_err().contains("no key of this algorithm"));
    }
}
