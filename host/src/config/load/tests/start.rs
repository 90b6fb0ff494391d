//! Where a Kafka source begins.

use super::*;
use crate::config::{KafkaStart, SourceKind};

/// What is in a Kafka source with these keys.
fn kafka(keys: &str) -> (Option<KafkaStart>, Vec<(String, i32, i64)>) {
    let source = format!("source: {{type: kafka, bootstrap_servers: [localhost:9092], topics: [orders], {keys}}}");
    let config = load_text(&format!("{source}\nsink: {{type: local, base_path: lake}}\n"), &[], &[]).unwrap();
    let SourceKind::Kafka(kafka) = &config.pipelines[0].source.kind else { panic!("another source") };
    (kafka.start, kafka.start_offsets.clone())
}

#[test]
fn it_begins_by_word_by_time_and_by_offset() {
    assert_eq!(kafka("group_id: a"), (None, Vec::new()));
    assert_eq!(kafka("start: latest").0, Some(KafkaStart::Latest));
    assert_eq!(kafka("start: 2023-11-14T22:13:20+00:00").0, Some(KafkaStart::At(1_700_000_000_000)));
    let offsets = kafka("start_offsets: {\"orders[0]\": 7, \"a[b][12]\": 0}").1;
    assert_eq!(offsets, [("orders".to_owned(), 0, 7), ("a[b]".to_owned(), 12, 0)]);
}

#[test]
fn what_is_no_beginning_is_said() {
    let wrong = faults_of_source("start: yesterday, start_offsets: {orders: 1, \"orders[0]\": -1, \"orders[x]\": 1}");
    assert_eq!(
        wrong,
        "source.start: expected earliest, latest, or a time since 1970 such as 2026-01-31T12:00:00Z, found \"yesterday\"\n\
         source.start_offsets.orders: expected a partition such as \"orders[0]\" as the key\n\
         source.start_offsets.orders[0]: expected a partition such as \"orders[0]\", and an offset from 0 on, found \"-1\"\n\
         source.start_offsets.orders[x]: expected a partition such as \"orders[0]\" as the key"
    );
    let twice = faults_of_source("start: latest, extra_config: {auto.offset.reset: earliest}");
    assert_eq!(twice, "source.start: stands beside extra_config.auto.offset.reset, which says the same; leave one out");
}
