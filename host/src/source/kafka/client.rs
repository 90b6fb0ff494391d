//! From the configuration to librdkafka's properties, and what librdkafka says meanwhile.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rdkafka::{
    ClientConfig, ClientContext,
    client::{Client, OAuthToken},
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{super::LaneContext, start::Start};
use crate::{
    config::{Delivery, KafkaConfig, librdkafka_properties as librdkafka},
    error::PipelineError,
    oauth::{self, Tokens},
    telemetry::rate_limit::RateLimited,
};

/// A broker that is away is told about at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What every client of a pipeline has: servers, and what the user set.
pub(super) fn base_config(kafka: &KafkaConfig, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.bootstrap_servers.join(","))
        .set("client.id", client_id)
        .set("group.id", &kafka.group_id)
        .set_log_level(RDKafkaLogLevel::Warning);
    for (name, value) in librdkafka(&kafka.extra_config) {
        config.set(name, value);
    }
    config
}

/// What the consumer of a lane has on top. The user's properties are set over these defaults; those that delivery
/// depends on were refused by the configuration and are set last.
pub(super) fn consumer_config(kafka: &KafkaConfig, context: &LaneContext) -> ClientConfig {
    // A quarter of the memory is librdkafka's, over all lanes; the floor keeps fetches efficient.
    let queue_kib = (context.run.memory_bytes / 4 / context.lanes.max(1) / 1024).clamp(4 * 1024, 64 * 1024);
    let mut config = ClientConfig::new();
    config
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("queued.max.messages.kbytes", queue_kib.to_string())
        .set("queued.min.messages", "50000")
        // By default a full queue is looked at again after a second, in which a lane has long emptied it.
        .set("fetch.queue.backoff.ms", "20")
        // A broker answers at once when records come. Whoever reads to the end asks it for more than records, which waits behind a fetch.
        .set("fetch.wait.max.ms", if context.run.until_end { "100" } else { "500" })
        // A topic that appears later, or matches a pattern later, is found within this.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("reconnect.backoff.max.ms", "5000")
        .set("statistics.interval.ms", if context.run.until_end { "500" } else { "15000" })
        // Some 400 KiB of histograms for each consumer, for operators of a cluster who ask clients for their metrics.
        .set("enable.metrics.push", "false");
    let client_id = format!("fs-data-sink-{}-{}", context.pipeline, context.lane);
    // Not through `config_map`, which shows passwords only as a placeholder.
    config
        .set("bootstrap.servers", kafka.bootstrap_servers.join(","))
        .set("client.id", client_id)
        .set("group.id", &kafka.group_id);
    if kafka.topics.iter().any(|topic| topic.starts_with('^'))
        && !kafka.topics.iter().any(|topic| topic.starts_with("__"))
    {
        // Kafka's own topics are not meant by a pattern such as `^.*`.
        config.set("topic.blacklist", "^__.*");
    }
    for (name, value) in librdkafka(&kafka.extra_config) {
        match name {
            // Each lane is a member of its own.
            "group.instance.id" if context.lanes > 1 => {
                config.set(name, format!("{value}-{}", context.lane));
            }
            // The broker assigns then; librdkafka refuses a strategy beside it.
            "group.protocol" if value == "consumer" => {
                config.remove("partition.assignment.strategy").set(name, value);
            }
            _ => {
                config.set(name, value);
            }
        }
    }
    config
        .set("allow.auto.create.topics", "false")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", Start::of(kafka).reset_name())
        .set_log_level(RDKafkaLogLevel::Warning);
    if context.run.delivery == Delivery::ExactlyOnce {
        // Where reading begins is set for each partition (`begin.rs`). An offset that the broker has deleted meanwhile is told
        // of, so that what is missing is counted.
        config.set("auto.offset.reset", "error");
    }
    config
}

/// librdkafka did not take the properties.
pub(super) fn refused(kafka: &KafkaConfig, error: KafkaError) -> PipelineError {
    let names: Vec<_> = kafka.extra_config.iter().map(|(name, _)| name.as_str()).collect();
    let message = match &error {
        KafkaError::ClientConfig(_, reason, name, _) if !name.is_empty() => {
            return PipelineError::stop(format!("source.extra_config: librdkafka refuses {name}: {reason}"));
        }
        _ => format!("source: librdkafka refuses the configuration (extra_config has: {})", names.join(", ")),
    };
    PipelineError::stop(message).because(error)
}

/// Whether an error stays until a person acts, with the key to look at. `reason` is what librdkafka says of it.
pub(super) fn for_a_person(code: RDKafkaErrorCode, reason: &str) -> Option<&'static str> {
    match code {
        // In TLS 1.3 a broker looks at the client's certificate after the handshake, so its refusal is a failed receive.
        RDKafkaErrorCode::SSL | RDKafkaErrorCode::BrokerTransportFailure => about_certificates(reason),
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            if reason.contains("GSSAPI") {
                // A key distribution centre that is away may return.
                return (!reason.contains("Cannot contact any KDC")).then_some(
                    "Kerberos gives no ticket: name sasl.kerberos.keytab and sasl.kerberos.principal in source.extra_config, or \
                     have one in the environment (kinit, or KRB5_CLIENT_KTNAME)",
                );
            }
            // A broker that was asked for a new session too soon; librdkafka comes again.
            if reason.contains("current SASL state") {
                return None;
            }
            // What became of a request for a token is told by its words.
            let is_about_tokens = reason.contains("OAUTHBEARER token");
            (!is_about_tokens || reason.contains(oauth::REFUSED)).then_some(
                "the user, the password or the token is refused: see security.protocol and sasl.* in source.extra_config",
            )
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => Some("this user may not read the topics: see source.topics"),
        RDKafkaErrorCode::GroupAuthorizationFailed => Some("this user may not use the group: see source.group_id"),
        RDKafkaErrorCode::Fatal => Some("librdkafka cannot go on"),
        _ => None,
    }
}

/// What is wrong with a certificate, where OpenSSL's words tell of one. Other failures of TLS may pass: a broker that goes
/// down in the middle of a handshake looks like one.
fn about_certificates(reason: &str) -> Option<&'static str> {
    let reason = reason.to_ascii_lowercase();
    if reason.contains("alert") && (reason.contains("certificate") || reason.contains("unknown ca")) {
        return Some(
            "the broker refuses the client's certificate, or wants one: it may have expired, or be of an authority that the \
             broker does not know; see ssl.certificate.location, ssl.key.location or ssl.keystore.location in \
             source.extra_config",
        );
    }
    (reason.contains("certificate verify failed") || reason.contains("certificate has expired")).then_some(
        "the broker's certificate cannot be trusted: it may have expired, be of another host, or of an authority that \
         ssl.ca.location in source.extra_config does not name",
    )
}

/// The files of keys and certificates that a client was made with. librdkafka reads them once; a client that is made anew
/// reads what is there then.
#[derive(Debug)]
pub(super) struct KeyFiles(Vec<(PathBuf, Option<SystemTime>)>);

impl KeyFiles {
    /// Those of a configuration, as they are now.
    pub(super) fn of(kafka: &KafkaConfig) -> Self {
        let is_file = |name: &str| name.starts_with("ssl.") && name.ends_with(".location");
        let files = kafka.extra_config.iter().filter(|(name, _)| is_file(name));
        Self(files.map(|(_, path)| (PathBuf::from(path.reveal()), changed_at(Path::new(path.reveal())))).collect())
    }

    /// Whether somebody has replaced one since.
    pub(super) fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, then)| changed_at(path) != *then)
    }
}

/// When a file was last written; `None` where that cannot be known.
fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|facts| facts.modified()).ok()
}

/// Keeps the last error and logs errors at a bounded rate.
#[derive(Debug)]
pub(super) struct Listener {
    /// What librdkafka said last.
    last: Mutex<Option<String>>,
    /// The first error that stays until a person acts.
    fatal: Mutex<Option<String>>,
    /// Keeps the log readable.
    log: RateLimited,
    /// Where they are asked for.
    tokens: Tokens,
}

impl Listener {
    /// For a client of this cluster.
    pub(super) fn new(kafka: &KafkaConfig) -> Result<Self, PipelineError> {
        let tokens = Tokens::new(&kafka.extra_config)?;
        Ok(Self { last: Mutex::default(), fatal: Mutex::default(), log: RateLimited::new(LOG_INTERVAL), tokens })
    }

    /// Says which client this is the listener of; at once after it is made.
    pub(super) fn attach<C: ClientContext>(&self, client: &Client<C>) {
        self.tokens.attach(client);
    }

    /// What librdkafka said last.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The error that stays until a person acts, once.
    pub(super) fn take_fatal(&self) -> Option<String> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes note of an error.
    pub(super) fn hear(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::PartitionEOF) || oauth::is_handed_over(reason) {
            return;
        }
        if let Some(advice) = code.and_then(|code| for_a_person(code, reason)) {
            let message = format!("{advice}: {reason}");
            self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
        }
        // That all brokers are down tells less than what came before it.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if code != Some(RDKafkaErrorCode::AllBrokersDown) || last.is_none() {
            *last = Some(reason.to_owned());
        }
        drop(last);
        if let Some(suppressed) = self.log.allow() {
            tracing::warn!(%error, reason, suppressed, "Kafka: librdkafka goes on trying");
        }
    }

    /// Logs what is tried again, at the same bounded rate.
    pub(super) fn tell(&self, reason: &str) {
        if let Some(suppressed) = self.log.allow() {
            tracing::warn!(reason, suppressed, "Kafka: trying again");
        }
    }
}

impl ClientContext for Listener {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.tokens.generate_oauth_token(config)
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(&error, reason);
    }
}

impl ConsumerContext for Listener {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_certificates_are_for_a_person() {
        let of = |reason| for_a_person(RDKafkaErrorCode::SSL, reason).unwrap_or("it may pass");
        let theirs = "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not \
                      be verified, verify that ssl.ca.location is correctly configured";
        assert!(of(theirs).starts_with("the broker's certificate cannot be trusted"));
        let ours = "error:0A000415:SSL routines::sslv3 alert certificate expired:SSL alert number 45";
        assert!(of(ours).starts_with("the broker refuses the client's certificate"));
        let later =
            "Receive failed: error:0A000416:SSL routines::ssl/tls alert certificate unknown: SSL alert number 46";
        assert!(for_a_person(RDKafkaErrorCode::BrokerTransportFailure, later).is_some());
        assert_eq!(for_a_person(RDKafkaErrorCode::BrokerTransportFailure, "Connect to ipv4#127.0.0.1:1 failed"), None);
        assert!(of("tlsv1 alert unknown ca: SSL alert number 48").starts_with("the broker refuses"));
        assert_eq!(of("SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"), "it may pass");
    }
}
