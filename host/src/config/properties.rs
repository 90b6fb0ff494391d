//! Names and values of `source.extra_config`.
//!
//! Names are librdkafka's; kafka-python's, which the original took, are understood where librdkafka has the same thing.
//! What would break delivery is refused with the key to use instead. Everything else librdkafka itself judges, without
//! a connection, so that what it knows and what we know cannot differ.

use rdkafka::{ClientConfig, error::KafkaError, types::RDKafkaConfRes};

use super::{fault::hint_or_stop, oauth};

/// Why offsets are not left to librdkafka.
const OFFSETS: &str = "offsets are committed only after the files that hold the rows are durable";

/// Properties that are set by keys of ours, or that delivery depends on, with the reason.
const REFUSED: [(&str, &str); 15] = [
    ("bootstrap.servers", "use source.bootstrap_servers"),
    ("metadata.broker.list", "use source.bootstrap_servers"),
    ("group.id", "use source.group_id"),
    ("enable.auto.commit", OFFSETS),
    ("auto.commit.enable", OFFSETS),
    ("auto.commit.interval.ms", OFFSETS),
    ("enable.auto.offset.store", OFFSETS),
    ("offset.store.method", OFFSETS),
    ("offset.store.path", OFFSETS),
    ("offset.store.sync.interval.ms", OFFSETS),
    ("enable.partition.eof", "it is on, since it says where a topic ends"),
    ("allow.auto.create.topics", "a topic that is only read must not come into being"),
    ("partition.assignment.strategy", "it is cooperative-sticky, so that a rebalance takes away only what moves"),
    ("plugin.library.paths", "no native library is loaded into this process"),
    ("sasl.kerberos.kinit.cmd", "a pipeline starts no commands"),
];

/// kafka-python's names that do not become librdkafka's by `_` to `.`.
const KAFKA_PYTHON: [(&str, &str); 10] = [
    ("sasl_plain_username", "sasl.username"),
    ("sasl_plain_password", "sasl.password"),
    ("ssl_cafile", "ssl.ca.location"),
    ("ssl_certfile", "ssl.certificate.location"),
    ("ssl_keyfile", "ssl.key.location"),
    ("ssl_crlfile", "ssl.crl.location"),
    ("ssl_password", "ssl.key.password"),
    ("fetch_max_wait_ms", "fetch.wait.max.ms"),
    ("request_timeout_ms", "socket.timeout.ms"),
    ("metadata_max_age_ms", "topic.metadata.refresh.interval.ms"),
];

/// Names of other clients for what a key of ours does.
const OURS: [(&str, &str); 3] = [
    ("max.poll.records", "use source.batch_size"),
    ("consumer.timeout.ms", "`run --until-end` ends at what was there at start"),
    ("value.deserializer", "use source.value_format"),
];

/// Names that people misspell; only for "did you mean".
const COMMON: [&str; 40] = [
    "auto.offset.reset",
    "check.crcs",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "debug",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "statistics.interval.ms",
];

/// librdkafka's name for a property that it takes with this value, or why not.
pub(super) fn librdkafka_name(name: &str, value: &str) -> Result<String, String> {
    let dotted = name.replace('_', ".");
    if let Some((refused, reason)) = REFUSED.iter().find(|(refused, _)| *refused == dotted) {
        return Err(format!("{refused} cannot be set here: {reason}"));
    }
    if dotted == "isolation.level" && value != "read_committed" {
        return Err(
            "isolation.level cannot be set to anything but read_committed: records of transactions that are not \
                    committed, or aborted, would become rows"
                .to_owned(),
        );
    }
    if let Some((_, instead)) = OURS.iter().find(|(other, _)| *other == dotted) {
        return Err(format!("librdkafka has no such property; {instead}"));
    }
    let translated = KAFKA_PYTHON.iter().find(|(python, _)| *python == name).map(|(_, librdkafka)| *librdkafka);
    let candidates = translated.map_or_else(|| vec![name, dotted.as_str()], |translated| vec![translated]);
    for candidate in candidates {
        if oauth::is_ours(candidate) {
            return Ok(candidate.to_owned());
        }
        match judge(candidate, value) {
            Verdict::Good => return Ok(candidate.to_owned()),
            Verdict::Wrong(message) => return Err(message),
            Verdict::Unknown => {}
        }
    }
    let hint = hint_or_stop(&dotted, COMMON.into_iter());
    Err(format!("librdkafka has no such property{hint} Its CONFIGURATION.md has them all"))
}

/// What librdkafka says.
enum Verdict {
    /// It takes it.
    Good,
    /// It has no such property.
    Unknown,
    /// It does not take the value.
    Wrong(String),
}

/// Asks librdkafka; nothing is connected.
fn judge(name: &str, value: &str) -> Verdict {
    // Texts for C end at a zero byte.
    if name.contains('\0') || value.contains('\0') {
        return Verdict::Wrong("a property must not contain a zero byte".to_owned());
    }
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Verdict::Good,
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => Verdict::Unknown,
        Err(KafkaError::ClientConfig(_, description, ..)) if !is_secret(name) => {
            Verdict::Wrong(format!("librdkafka refuses it: {description}"))
        }
        Err(_) => Verdict::Wrong("librdkafka refuses the value".to_owned()),
    }
}

/// Whether the value of a property or of any key may be a secret, by its name.
pub(super) fn is_secret(name: &str) -> bool {
    let words = ["secret", "password", "passphrase", "passwd", "token", "credential", "jaas", "pem", "authorization"];
    let ends = ["apikey", "api_key", "private_key", "access_key", "oauthbearer.config", "auth", "pwd"];
    let lower = name.to_ascii_lowercase().replace('-', "_");
    // Where tokens are fetched is no secret, nor is which header or type they have.
    let is_public = lower.rsplit(['.', '_']).next() == Some("url");
    !is_public && (words.iter().any(|word| lower.contains(word)) || ends.iter().any(|end| lower.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_delivery_is_refused_in_both_spellings() {
        for name in ["enable.auto.commit", "enable_auto_commit"] {
            let message = librdkafka_name(name, "true").unwrap_err();
            let expected = "enable.auto.commit cannot be set here: offsets are committed only after the files that hold the \
                            rows are durable";
            assert_eq!(message, expected);
        }
        for (name, reason) in REFUSED {
            assert!(librdkafka_name(name, "1").unwrap_err().ends_with(reason));
        }
        let uncommitted = librdkafka_name("isolation_level", "read_uncommitted").unwrap_err();
        assert!(uncommitted.contains("anything but read_committed"), "{uncommitted}");
        assert_eq!(librdkafka_name("isolation.level", "read_committed").unwrap(), "isolation.level");
        assert_eq!(librdkafka_name("group_id", "g").unwrap_err(), "group.id cannot be set here: use source.group_id");
    }

    #[test]
    fn names_of_librdkafka_and_of_kafka_python_are_understood() {
        let name = |name: &str, value: &str| librdkafka_name(name, value).unwrap();
        assert_eq!(name("fetch.min.bytes", "100000"), "fetch.min.bytes");
        assert_eq!(name("auto.offset.reset", "earliest"), "auto.offset.reset");
        assert_eq!(name("auto_offset_reset", "latest"), "auto.offset.reset");
        assert_eq!(name("session_timeout_ms", "30000"), "session.timeout.ms");
        assert_eq!(name("security_protocol", "SASL_SSL"), "security.protocol");
        assert_eq!(name("sasl_plain_password", "x"), "sasl.password");
        assert_eq!(name("log_level", "6"), "log_level");
        for (python, librdkafka) in KAFKA_PYTHON {
            assert!(!matches!(judge(librdkafka, "1"), Verdict::Unknown), "{python}");
        }
    }

    #[test]
    fn the_names_to_suggest_exist() {
        for name in COMMON {
            assert!(!matches!(judge(name, "1"), Verdict::Unknown), "{name}");
        }
        assert_eq!(librdkafka_name("sasl_oauthbearer_method", "oidc").unwrap(), "sasl.oauthbearer.method");
    }

    #[test]
    fn what_librdkafka_does_not_take_is_told_offline() {
        let fault = |name: &str, value: &str| librdkafka_name(name, value).unwrap_err();
        assert_eq!(
            fault("fetch.min.byte", "1"),
            "librdkafka has no such property; did you mean fetch.min.bytes? Its CONFIGURATION.md has them all"
        );
        assert_eq!(fault("max_poll_records", "500"), "librdkafka has no such property; use source.batch_size");
        assert!(fault("fetch.min.bytes", "many").starts_with("librdkafka refuses it: "));
        assert_eq!(fault("client.id", "a\0b"), "a property must not contain a zero byte");
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in ["sasl.password", "ssl.key.pem", "aws_secret_access_key", "api-key", "Authorization", "geo_api_key"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["key", "bucket", "sasl.oauthbearer.token.endpoint.url", "group.id", "ssl.key.location"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
