//! Names of librdkafka's properties in `source.extra_config`: those that would break delivery are refused, and
//! kafka-python's names, which the original took, are understood where librdkafka has the same thing.

/// Properties that are set by keys of ours, or that delivery depends on, with the reason.
const REFUSED: [(&str, &str); 12] = [
    ("bootstrap.servers", "set source.bootstrap_servers"),
    ("metadata.broker.list", "set source.bootstrap_servers"),
    ("group.id", "set source.group_id"),
    ("enable.auto.commit", "offsets are committed only after the files that hold the rows are durable"),
    ("auto.commit.enable", "offsets are committed only after the files that hold the rows are durable"),
    ("auto.commit.interval.ms", "offsets are committed only after the files that hold the rows are durable"),
    ("enable.auto.offset.store", "offsets are committed only after the files that hold the rows are durable"),
    ("enable.partition.eof", "it is on, to know where a topic ends"),
    ("offset.store.method", "offsets are kept by the broker"),
    ("allow.auto.create.topics", "a topic that is only read must not come into being"),
    ("partition.assignment.strategy", "cooperative-sticky, so that a rebalance takes away only what moves"),
    ("plugin.library.paths", "no code is loaded into this process"),
];

/// kafka-python's names that do not become librdkafka's by `_` to `.`.
const KAFKA_PYTHON: [(&str, &str); 12] = [
    ("security_protocol", "security.protocol"),
    ("sasl_mechanism", "sasl.mechanism"),
    ("sasl_plain_username", "sasl.username"),
    ("sasl_plain_password", "sasl.password"),
    ("ssl_cafile", "ssl.ca.location"),
    ("ssl_certfile", "ssl.certificate.location"),
    ("ssl_keyfile", "ssl.key.location"),
    ("ssl_password", "ssl.key.password"),
    ("max_partition_fetch_bytes", "max.partition.fetch.bytes"),
    ("fetch_max_wait_ms", "fetch.wait.max.ms"),
    ("request_timeout_ms", "socket.timeout.ms"),
    ("retry_backoff_ms", "retry.backoff.ms"),
];

/// kafka-python's names that are librdkafka's by `_` to `.`.
const SAME_BY_DOTS: [&str; 12] = [
    "client_id",
    "auto_offset_reset",
    "fetch_min_bytes",
    "fetch_max_bytes",
    "session_timeout_ms",
    "heartbeat_interval_ms",
    "max_poll_interval_ms",
    "metadata_max_age_ms",
    "isolation_level",
    "client_rack",
    "reconnect_backoff_ms",
    "connections_max_idle_ms",
];

/// librdkafka's name, or why the property is refused. Names that only librdkafka can judge go through; it answers when
/// the consumer is made.
pub(super) fn librdkafka_name(name: &str) -> Result<String, String> {
    let known = if name.contains('_') && !name.contains('.') {
        match KAFKA_PYTHON.iter().find(|(python, _)| *python == name) {
            Some((_, librdkafka)) => (*librdkafka).to_owned(),
            None if SAME_BY_DOTS.contains(&name)
                || REFUSED.iter().any(|(refused, _)| *refused == name.replace('_', ".")) =>
            {
                name.replace('_', ".")
            }
            None => {
                return Err(format!(
                    "this is kafka-python's way to write it, and librdkafka has no such property; \
                     see librdkafka's CONFIGURATION.md for names such as {}",
                    name.replace('_', ".")
                ));
            }
        }
    } else {
        name.to_owned()
    };
    match REFUSED.iter().find(|(refused, _)| *refused == known) {
        Some((_, reason)) => Err(format!("{known} cannot be set here: {reason}")),
        None => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_delivery_is_refused_in_both_spellings() {
        for name in ["enable.auto.commit", "enable_auto_commit", "group.id", "group_id"] {
            assert!(librdkafka_name(name).unwrap_err().contains("cannot be set here"), "{name}");
        }
        assert_eq!(librdkafka_name("fetch.min.bytes").unwrap(), "fetch.min.bytes");
        assert_eq!(librdkafka_name("auto_offset_reset").unwrap(), "auto.offset.reset");
        assert_eq!(librdkafka_name("sasl_plain_password").unwrap(), "sasl.password");
        assert!(librdkafka_name("value_deserializer").unwrap_err().contains("kafka-python"));
    }
}
