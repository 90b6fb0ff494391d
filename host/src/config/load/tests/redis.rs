//! A Redis source: what is understood, and what is said of the rest.

use std::time::Duration;

use super::{faults, folder_with, load_paths, load_text};
use crate::config::{
    ClientTls, Config, Delivery, RedisAddress, RedisConfig, RedisEntry, RedisServers, RedisStart, SourceKind,
};

/// A pipeline whose source is Redis with these keys.
fn text(keys: &str) -> String {
    format!("source: {{type: redis, {keys}}}\nsink: {{type: local, base_path: lake}}\n")
}

/// The faults of such a pipeline, without what they all begin with.
fn faults_of(keys: &str) -> String {
    faults(&text(keys)).replace("orders.yaml:1: source", "source")
}

/// The source of a configuration with one pipeline.
fn redis(config: &Config) -> &RedisConfig {
    let SourceKind::Redis(redis) = &config.pipelines[0].source.kind else { panic!("redis") };
    redis
}

/// An address.
fn address(host: &str, port: u16) -> RedisAddress {
    RedisAddress { host: host.to_owned(), port }
}

/// Scenario: the original's example of a Redis source, with what it leaves out.
#[test]
fn the_example_of_the_original_is_understood() {
    let keys = "host: localhost, port: 6379, db: 0, stream_keys: [data-stream-1, data-stream-2], value_format: json, \
                batch_size: 1000, continuous: true";
    let config = load_text(&text(keys), &[], &[]).unwrap();
    let source = redis(&config);
    assert_eq!(source.connection.servers, RedisServers::Single(address("localhost", 6379)));
    assert_eq!(source.stream_keys, ["data-stream-1", "data-stream-2"]);
    assert_eq!((source.entry.clone(), source.start), (RedisEntry::Field("value".to_owned()), RedisStart::Earliest));
    assert_eq!((source.claim_idle, source.session_timeout), (Duration::from_secs(60), Duration::from_secs(10)));
    assert_eq!((config.pipelines[0].run.delivery, config.pipelines[0].run.until_end), (Delivery::ExactlyOnce, false));
    assert!(
        source.is_continuous
            && source.connection.tls.is_none()
            && source.deliveries_max.is_none()
            && source.scope.len() == 8
    );
}

#[test]
fn the_variables_of_the_original_count() {
    let variables = [
        ("SOURCE_TYPE", "redis"),
        ("REDIS_HOST", "cache"),
        ("REDIS_PORT", "7000"),
        ("REDIS_DB", "3"),
        ("REDIS_PASSWORD", "geheim"),
        ("REDIS_STREAM_KEYS", "a, b"),
        ("REDIS_CONTINUOUS", "false"),
        ("REDIS_CONSUMER_GROUP", "lake"),
        ("REDIS_CONSUMER_NAME", "me"),
        ("KAFKA_TOPICS", "not for this source"),
    ];
    let config = load_text("sink: {type: local, base_path: lake}\n", &variables, &[]).unwrap();
    let source = redis(&config);
    assert_eq!(source.connection.servers, RedisServers::Single(address("cache", 7000)));
    assert_eq!((source.stream_keys.len(), source.connection.db, source.is_continuous), (2, 3, false));
    assert_eq!((source.consumer_group.as_deref(), source.consumer_name.as_deref()), (Some("lake"), Some("me")));
    assert!(config.pipelines[0].run.until_end, "what is not continuous ends at what is there");
    assert!(!format!("{config:?}").contains("geheim") && !config.to_yaml().contains("geheim"));
    let lists = [("REDIS_LIST_KEYS", "l")];
    let config = load_text(&text(""), &lists, &[]).unwrap();
    assert_eq!((redis(&config).list_keys.len(), config.pipelines[0].run.delivery), (1, Delivery::AtLeastOnce));
}

#[test]
fn an_address_may_say_it_all() {
    let keys = "url: 'rediss://me:p%40ss@[::1]:7000/2', stream_keys: a";
    let config = load_text(&text(keys), &[], &[]).unwrap();
    let source = redis(&config);
    assert_eq!(source.connection.servers, RedisServers::Single(address("::1", 7000)));
    assert_eq!((source.connection.username.as_deref(), source.connection.db), (Some("me"), 2));
    assert_eq!(source.connection.password.as_ref().unwrap().reveal(), "p@ss");
    assert_eq!(source.connection.tls, Some(ClientTls::default()));
    for wrong in
        ["http://u:geheim@h", "redis://", "redis://u:geheim@h/x", "redis://u:geheim@h?protocol=resp3", "geheim"]
    {
        let message = faults_of(&format!("url: '{wrong}', stream_keys: a"));
        assert!(message.starts_with("source.url: ") && !message.contains("geheim"), "{message}");
    }
    assert_eq!(
        faults_of("url: redis://h, host: x, stream_keys: a"),
        "source.host: stands beside `url`, which says it already; leave one out"
    );
}

#[test]
fn sentinels_and_clusters() {
    let keys = "sentinel: {master_name: m, nodes: ['a:1', 'b:2'], password: geheim}, stream_keys: [a], tls: true";
    let config = load_text(&text(keys), &[], &[]).unwrap();
    let RedisServers::Sentinel { master_name, nodes, .. } = &redis(&config).connection.servers else {
        panic!("sentinel")
    };
    assert_eq!((master_name.as_str(), nodes.as_slice()), ("m", [address("a", 1), address("b", 2)].as_slice()));
    assert!(!config.to_yaml().contains("geheim"));
    let config = load_text(&text("cluster: true, host: a, stream_keys: [a]"), &[], &[]).unwrap();
    assert_eq!(redis(&config).connection.servers, RedisServers::Cluster(vec![address("a", 6379)]));
    assert_eq!(
        faults_of("sentinel: {}, stream_keys: a"),
        "source.sentinel.master_name: is missing: what the Sentinels call the \
        master, such as mymaster\nsource.sentinel.nodes: is missing: a list of the Sentinels, host:port"
    );
    assert_eq!(faults_of("cluster: true, db: 1, stream_keys: a"), "source.db: a cluster has database 0 only");
    assert_eq!(
        faults_of("nodes: ['a:1'], stream_keys: a"),
        "source.nodes: has no meaning here; it belongs to `cluster: true`"
    );
    assert_eq!(
        faults_of("cluster: true, nodes: [a, 'b:x'], stream_keys: a"),
        "source.nodes: expected host:port, found \"a\"\nsource.nodes: expected host:port, found \"b:x\""
    );
}

#[test]
fn what_is_wrong_is_said() {
    assert_eq!(
        faults_of("host: h"),
        "source.stream_keys: is missing: a list of streams; or `list_keys`, a list of lists"
    );
    assert_eq!(faults_of("stream_keys: []"), "source.stream_keys: expected at least one key");
    assert_eq!(faults_of("stream_keys: [a, a]"), "source.stream_keys: \"a\" is there twice");
    assert_eq!(faults_of("stream_keys: ['a*']"), "source.stream_keys: \"a*\": patterns are not served; name each key");
    assert_eq!(
        faults_of("stream_keys: [a], list_keys: [a]"),
        "source.list_keys: \"a\" is in `stream_keys` too; a key is one or the other"
    );
    assert_eq!(faults_of("stream_keys: a, port: 0"), "source.port: expected a port from 1 to 65535, found \"0\"");
    assert_eq!(
        faults_of("stream_keys: a, topics: [b]"),
        "source.topics: has no meaning here; it belongs to `type: kafka`"
    );
    assert_eq!(
        faults_of("stream_keys: a, payload_field: x, entry: record"),
        "source.payload_field: has no meaning with `entry: record`, which takes all fields"
    );
    assert_eq!(faults_of("stream_keys: a, list_read: pop"), "source.list_read: has no meaning without `list_keys`");
    assert_eq!(
        faults_of("list_keys: a, list_read: blpop"),
        "source.list_read: expected one of move, pop, found \"blpop\""
    );
    assert!(faults_of("stream_keys: a, claim_idle: 1s").contains("at least 5s"));
    assert!(faults_of("stream_keys: a, session_timeout: 1ms").contains("not between 1s and 10m"));
    assert_eq!(
        faults_of("stream_keys: a, tls: maybe"),
        "source.tls: expected true or false, found \"maybe\", or keys and values \
        such as {ca_file: ca.pem}"
    );
    assert_eq!(
        faults_of("stream_keys: a, tls: {cert_file: p.wasm, insecure: true}"),
        "source.tls.cert_file: is there without `key_file`; a certificate needs its key\n\
         source.tls.insecure: certificates are always checked; `ca_file` says which are believed"
    );
    assert!(
        faults_of("stream_keys: a, tls: {ca_file: no.pem}")
            .contains("expected a file of certificates in PEM, found nothing")
    );
    assert_eq!(
        faults_of("stream_keys: a, extra_config: {ssl_ca_certs: x, frobnicate: 1}"),
        "source.extra_config.frobnicate: a Redis source has no further properties; config/full.yaml has its keys\n\
         source.extra_config.ssl_ca_certs: redis-py's name has no meaning here: use source.tls.ca_file"
    );
}

#[test]
fn lists_are_read_at_least_once() {
    let once = text("list_keys: a") + "pipeline: {delivery: exactly_once}\n";
    assert_eq!(
        faults(&once),
        "orders.yaml:3: pipeline.delivery: lists of Redis have no positions to go back to: at_least_once is what they serve; streams \
         can be read exactly_once, in a pipeline without `list_keys`"
    );
}

#[test]
fn pipelines_that_write_elsewhere_share_no_streams() {
    let scope = |base_path: &str| {
        let flags = [("sink.base_path", base_path)];
        redis(&load_text(&text("stream_keys: a"), &[], &flags).unwrap()).scope.clone()
    };
    assert_eq!(scope("/a"), scope("/a"));
    assert_ne!(scope("/a"), scope("/b"));
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    for keys in [
        "stream_keys: [a], consumer_group: g, deliveries_max: 5, tls: {ca_file: p.wasm, cert_file: p.wasm, key_file: p.wasm}",
        "list_keys: [a], list_read: pop",
        "list_keys: [a, b], continuous: false, username: u, db: 2, payload_field: x, tls: true",
        "stream_keys: [a], sentinel: {master_name: m, nodes: ['a:1']}, entry: record, start: latest",
        "stream_keys: [a], cluster: true, nodes: ['a:1', '[::1]:2'], session_timeout: 1500ms",
    ] {
        let folder = folder_with(&text(keys));
        let first = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
        std::fs::write(folder.path().join("printed.yaml"), first.to_yaml()).unwrap();
        let second =
            load_paths(folder.path(), &["printed.yaml"], &[], &[]).unwrap_or_else(|faults| panic!("{faults}\n{keys}"));
        assert_eq!(format!("{:#?}", redis(&first)), format!("{:#?}", redis(&second)));
    }
}
