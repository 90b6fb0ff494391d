//! Where refused records go.

use super::*;
use crate::config::KafkaLetterConfig;

/// The topic of a pipeline that is right but for a third line.
fn topic(source: &str, line: &str) -> KafkaLetterConfig {
    let text = format!("source: {source}\nsink: {{type: local, base_path: lake, retry_timeout: 7s}}\n{line}\n");
    let config = load_text(&text, &[], &[]).unwrap();
    let DeadLetterConfig::Kafka(letters) = config.pipelines[0].dead_letter.clone() else { panic!("no topic") };
    letters
}

#[test]
fn a_topic_beside_the_source_is_reached_as_the_source_is() {
    let source = "{type: kafka, bootstrap_servers: [a:1], topics: [orders], extra_config: {sasl.password: geheim, fetch.min.bytes: 7}}";
    let letters = topic(source, "dead_letter: {type: kafka, topic: dead, extra_config: {linger.ms: 3}}");
    assert_eq!((letters.topic.as_str(), letters.retry_timeout.as_secs()), ("dead", 7));
    assert_eq!(letters.bootstrap_servers, ["a:1"]);
    let properties: Vec<_> =
        letters.extra_config.iter().map(|(name, value)| format!("{name}={}", value.reveal())).collect();
    assert_eq!(properties, ["sasl.password=geheim", "linger.ms=3"]);
    let other = topic(source, "dead_letter: {type: kafka, topic: dead, bootstrap_servers: [b:2]}");
    assert!(other.extra_config.is_empty(), "passwords are not sent to other brokers");
    let file = topic("{type: file, paths: [a]}", "dead_letter: {type: kafka, topic: dead, bootstrap_servers: b:2}");
    assert_eq!(file.bootstrap_servers, ["b:2"]);
}

#[test]
fn a_topic_that_a_pattern_of_the_source_matches_is_a_loop() {
    let of = |pattern: &str| {
        let source = format!("source: {{type: kafka, bootstrap_servers: [h:9], topics: ['{pattern}'], group_id: g}}");
        let text = format!(
            "{source}\nsink: {{type: local, base_path: lake}}\ndead_letter: {{type: kafka, topic: orders-dead}}"
        );
        load_text(&text, &[], &[]).map(drop)
    };
    assert!(of("^orders.*").unwrap_err().contains("refused records would come back for ever"));
    assert!(of("^orders-[0-9]+$").is_ok());
}

#[test]
fn what_is_no_place_for_letters_is_said() {
    let of =
        |keys: &str| faults_of_line(&format!("dead_letter: {{{keys}}}")).replace("orders.yaml:3: dead_letter.", "");
    assert_eq!(
        of("type: kafka, topic: orders"),
        "topic: is read by this pipeline's own source: refused records would come back for ever"
    );
    assert!(of("type: kafka").ends_with("topic: is missing: the name of a topic"), "{}", of("type: kafka"));
    assert!(of("type: kafka, topic: ^a").contains("a pattern is none"));
    assert!(of("topic: dead").contains("topic: "), "{}", of("topic: dead"));
    let refused = of("type: kafka, topic: dead, extra_config: {acks: 1, message.timeout.ms: 5}");
    assert!(refused.contains("all replicas in sync") && refused.contains("use sink.retry_timeout"), "{refused}");
    let wrong =
        of("type: kafka, topic: dead, bootstrap_servers: 'http://a', extra_config: {linger.ms: 1, linger_ms: 2}");
    assert!(
        wrong.contains("expected host:port, found \"http://a\"") && wrong.contains("sets linger.ms a second time"),
        "{wrong}"
    );
    let file = "source: {type: file, paths: [a]}\nsink: {type: local, base_path: lake}\ndead_letter: {type: kafka, topic: dead}\n";
    assert_eq!(
        faults(file),
        "orders.yaml:3: dead_letter.bootstrap_servers: is missing: the source is not Kafka, so say host:port"
    );
}
