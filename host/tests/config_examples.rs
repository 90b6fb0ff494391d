//! Every example in `config/` loads, and `full.yaml` has every key.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: a panic is its way to fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use fs_data_sink::config::{
    Config, SinkKind, SourceKind,
    load::{Inputs, load},
};

/// The folder with the examples.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

/// Loads a copy of an example beside a plugin's file, since plugins may not be built yet.
fn load_example(name: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins/dist");
    fs::create_dir_all(&plugins).unwrap();
    for plugin in ["keep_values.wasm", "parse_user_agent.wasm"] {
        fs::write(plugins.join(plugin), b"\0asm\x0d\0\x01\0").unwrap();
    }
    let copy = folder.path().join("config").join(name);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(examples().join(name), &copy).unwrap();
    load(&Inputs { paths: vec![copy], ..Inputs::default() }).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn every_example_loads() {
    let mut pairs = BTreeSet::new();
    for entry in fs::read_dir(examples()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let text = fs::read_to_string(examples().join(&name)).unwrap_or_default();
        // Others live here too, such as the collector's configuration.
        if Path::new(&name).extension() != Some("yaml".as_ref())
            || !text.lines().any(|line| line.starts_with("source:"))
        {
            continue;
        }
        let config = load_example(&name);
        let pipeline = &config.pipelines[0];
        let source = match pipeline.source.kind {
            SourceKind::Kafka(_) => "kafka",
            SourceKind::File(_) => "file",
            SourceKind::Redis(_) => "redis",
            SourceKind::Letters(_) => "dead_letters",
        };
        let sink = match pipeline.sink.kind {
            SinkKind::S3(_) => "s3",
            SinkKind::Hdfs(_) => "hdfs",
            SinkKind::Local(_) => "local",
            SinkKind::Gcs(_) => "gcs",
            SinkKind::Azure(_) => "azure",
        };
        pairs.insert((source, sink));
    }
    let sinks = ["hdfs", "local", "s3", "gcs", "azure"].map(|sink| ("kafka", sink));
    assert_eq!(pairs, sinks.into_iter().chain([("file", "local"), ("redis", "local")]).collect());
}

#[test]
fn the_full_example_has_every_key() {
    let text = fs::read_to_string(examples().join("full.yaml")).unwrap();
    let printed = load_example("full.yaml").to_yaml()
        + &load_example("file-to-local.yaml").to_yaml()
        + &load_example("redis-streams-to-local.yaml").to_yaml()
        + &load_example("redis-lists-to-local.yaml").to_yaml()
        + &load_example("kafka-to-hdfs.yaml").to_yaml()
        + &load_example("kafka-to-gcs.yaml").to_yaml()
        + &load_example("kafka-to-azure.yaml").to_yaml();
    // What is printed has every key that there is, each before its colon.
    let keys: BTreeSet<&str> = printed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.trim_start_matches([' ', '-']).split_once(':').map(|(key, _)| key))
        .collect();
    assert!(keys.len() > 60, "{keys:?}");
    let missing: Vec<_> = keys.iter().filter(|key| !text.contains(&format!("{}:", key.trim_matches('"')))).collect();
    assert!(missing.is_empty(), "full.yaml lacks {missing:?}");
}

#[test]
fn the_defaults_in_the_full_example_are_the_defaults() {
    let (full, least) = (load_example("full.yaml"), load_example("kafka-to-local.yaml"));
    let (full, least) = (&full.pipelines[0], &least.pipelines[0]);
    assert_eq!(full.source.batch_rows_max, least.source.batch_rows_max);
    assert_eq!(full.source.batch_timeout, least.source.batch_timeout);
    assert_eq!(full.decode.on_type_change, least.decode.on_type_change);
    assert_eq!(full.plugins[0].limits, fs_data_sink::config::PluginLimits::default());
    assert_eq!(full.plugins[0].on_trap, fs_data_sink::config::OnTrap::default());
    assert_eq!(full.sink.retry_timeout, least.sink.retry_timeout);
    assert_eq!(full.sink.parquet.row_group_rows, least.sink.parquet.row_group_rows);
    assert_eq!(full.sink.parquet.row_group_bytes, least.sink.parquet.row_group_bytes);
    assert_eq!(full.sink.parquet.data_page_bytes, least.sink.parquet.data_page_bytes);
    assert_eq!(full.sink.parquet.statistics, least.sink.parquet.statistics);
    let (full, least) = (&full.run, &least.run);
    assert_eq!(full.commit_interval, least.commit_interval);
    assert_eq!(full.target_file_size_bytes, least.target_file_size_bytes);
    assert_eq!(full.open_files_max, least.open_files_max);
    assert_eq!(full.memory_bytes, least.memory_bytes);
    assert_eq!(full.lanes, least.lanes);
    assert_eq!(full.error_handling, least.error_handling);
    assert_eq!(full.shutdown_timeout, least.shutdown_timeout);
}
