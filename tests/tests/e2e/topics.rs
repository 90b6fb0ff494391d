//! Topics that are not a plain row of records: with transactions, compacted, with records deleted, made anew.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    http,
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, end, finish, kafka_source, local_sink},
    services::{
        free_port,
        kafka::{Kafka, NewRecord, Producer},
        process::{Process, Signal},
    },
    wait::{self, Look},
};
use serde_json::json;

use crate::shared::{LONG, SHORT, kafka, scenario, unique};

/// A record with this id.
pub(crate) fn record(id: u64, partition: i32) -> NewRecord {
    NewRecord { partition, value: Some(json!({"id": id}).to_string().into_bytes()), ..NewRecord::default() }
}

/// Writes the configuration of a pipeline from a topic into the folder `lake`.
fn configure(workspace: &Workspace, kafka: &Kafka, topic: &str) -> anyhow::Result<Configuration> {
    let source = kafka_source(kafka.bootstrap(), topic, &unique("group"));
    let configuration = Configuration::new("topics", source, local_sink(&workspace.path().join("lake")));
    workspace.write("pipeline.yaml", configuration.yaml())?;
    Ok(configuration)
}

/// Reads to the end, and looks whether exactly these rows are there and the ledger agrees; what `ledger verify` said.
fn run_and_compare(workspace: &Workspace, ids: &BTreeSet<u64>) -> anyhow::Result<String> {
    workspace.run(&["run", "pipeline.yaml", "--until-end"], SHORT)?.expect(0, &[])?;
    compare(workspace, ids)
}

/// Whether exactly these rows are there and the ledger agrees.
pub(crate) fn compare(workspace: &Workspace, ids: &BTreeSet<u64>) -> anyhow::Result<String> {
    compare_rows(workspace, "lake", ids)?;
    let verified = workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?;
    verified.expect(0, &["the store is as the ledger says"])?;
    Ok(verified.output)
}

/// Whether exactly these rows are in a folder.
pub(crate) fn compare_rows(workspace: &Workspace, folder: &str, ids: &BTreeSet<u64>) -> anyhow::Result<()> {
    let (folder, ids) = (workspace.path().join(folder), ids.clone());
    let expected =
        Expected::new(Box::new(move || Box::new(ids.clone().into_iter().map(|id| json!({"id": id}).to_string()))));
    let seen = Lake::Local(&folder).read(Reader::DuckDb, &[], workspace.path())?;
    seen.compare(&expected)?.expect_exact()
}

/// Sends records of one transaction to two partitions by turns.
fn send(producer: &Producer, topic: &str, ids: std::ops::Range<u64>) -> anyhow::Result<()> {
    producer.begin()?;
    for id in ids {
        producer.send(topic, &record(id, i32::try_from(id % 2)?))?;
    }
    producer.flush()
}

/// Scenario: transactions, every third of them aborted, also the last one; another one is still open when the pipeline reads to
/// the end, and is committed before it does so again.
/// Guarantees: each run ends by itself; rows of committed transactions are there exactly once, of aborted ones never.
#[test]
fn only_committed_transactions_become_rows() -> anyhow::Result<()> {
    scenario("transactions", |workspace| {
        let (kafka, topic) = (kafka()?, unique("transactions"));
        kafka.create_topic(&topic, 2)?;
        let producer = kafka.transactional_producer(&unique("producer"))?;
        let mut committed = BTreeSet::new();
        for number in 0..18_u64 {
            let ids = number * 100..(number + 1) * 100;
            send(&producer, &topic, ids.clone())?;
            if number % 3 == 2 {
                producer.abort()?;
            } else {
                producer.commit()?;
                committed.extend(ids);
            }
        }
        let open = kafka.transactional_producer(&unique("open"))?;
        send(&open, &topic, 10_000..10_050)?;
        configure(workspace, kafka, &topic)?;
        run_and_compare(workspace, &committed).context("beside an open transaction")?;
        open.commit()?;
        committed.extend(10_000..10_050);
        send(&producer, &topic, 20_000..20_010)?;
        producer.abort()?;
        let said = run_and_compare(workspace, &committed).context("after it was committed")?;
        ensure!(!said.contains("note: "), "ends of transactions are held for deleted records: {said}");
        run_and_compare(workspace, &committed).context("once more")?;
        Ok(())
    })
}

/// Sends so many records with fifty keys, and waits until the broker has left only the last ones of each.
fn send_and_compact(kafka: &Kafka, topic: &str, ids: std::ops::Range<u64>) -> anyhow::Result<Vec<(i64, Vec<u8>)>> {
    let keyed = |id: u64, key: String| NewRecord { key: Some(key.into_bytes()), ..record(id, 0) };
    let from = kafka.end_offsets(topic)?.get(&0).copied().unwrap_or_default();
    let keys = from.to_string();
    kafka.produce(topic, ids.clone().map(|id| keyed(id, format!("{keys}-{}", id % 50))))?;
    // The last segment is not compacted: a later record begins a new one.
    thread::sleep(Duration::from_millis(300));
    kafka.produce(topic, [keyed(ids.end, format!("{keys}-last"))])?;
    wait::until("the broker to compact the topic", LONG, || {
        let left = kafka.read_all(topic, from)?;
        Ok(if left.len() == 51 { Look::Done(left) } else { Look::NotYet(format!("{} records are left", left.len())) })
    })
}

/// Scenario: a topic is compacted before it is read, twice.
/// Guarantees: the holes do not matter: each record that is left becomes one row, and the run ends by itself.
#[test]
fn a_compacted_topic_has_holes() -> anyhow::Result<()> {
    scenario("compacted", |workspace| {
        let (kafka, topic) = (kafka()?, unique("compacted"));
        let settings = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "100"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("min.compaction.lag.ms", "0"),
            ("max.compaction.lag.ms", "200"),
        ];
        kafka.create_topic_with(&topic, 1, &settings)?;
        configure(workspace, kafka, &topic)?;
        let mut ids = BTreeSet::new();
        for round in 0..2_u64 {
            let first = round * 5_000;
            for (_, value) in send_and_compact(kafka, &topic, first..first + 2_000)? {
                let value: serde_json::Value = serde_json::from_slice(&value)?;
                ids.insert(value["id"].as_u64().context("a record without an id")?);
            }
            run_and_compare(workspace, &ids).with_context(|| format!("round {round}"))?;
        }
        ensure!(ids.len() == 102, "{} records were left", ids.len());
        Ok(())
    })
}

/// Scenario: while the pipeline is down, the broker deletes records that it has not read; then once more while it runs and is
/// slow, which is a process that is stopped for a while.
/// Guarantees: reading goes on behind them; how many are missing and where is logged, counted and shown by `ledger verify`, also
/// after the next start, which does not count them again.
#[test]
fn deleted_records_are_counted() -> anyhow::Result<()> {
    scenario("deleted-records", |workspace| {
        let (kafka, topic) = (kafka()?, unique("deleted"));
        kafka.create_topic(&topic, 2)?;
        let of_both = |ids: std::ops::Range<u64>| ids.map(|id| record(id, i32::from(id % 2 == 1)));
        kafka.produce(&topic, of_both(0..1_000))?;
        let mut configuration = configure(workspace, kafka, &topic)?;
        let mut ids: BTreeSet<u64> = (0..1_000).collect();
        run_and_compare(workspace, &ids)?;
        kafka.produce(&topic, of_both(1_000..2_000))?;
        // The first 300 of them in partition 0: its even ids.
        kafka.delete_records(&topic, 0, 800)?;
        ids.extend((1_000..2_000).filter(|id| id % 2 == 1 || *id >= 1_600));
        let address = format!("127.0.0.1:{}", free_port()?);
        configuration.telemetry = format!("  log_format: text\n  listen: \"{address}\"\n");
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        let (missing, processed) = ("fs_data_sink_missing_records_total", "fs_data_sink_records_processed_total");
        let wait_for = |process: &mut Process, name: &str, count: f64| {
            wait::until(&format!("{name} to be {count}"), SHORT, || {
                process.ensure_running()?;
                let page = http::get(&address, "/metrics").map_or_else(|_| String::new(), |(_, page)| page);
                let found = http::metric(&page, name);
                Ok(Look::when(found == Some(count), format!("{found:?}")))
            })
        };
        wait_for(&mut process, missing, 300.0)?;
        wait_for(&mut process, processed, 700.0)?;
        // What is read and not committed would be missing too, since the group loses a member that is stopped for so long.
        wait::until("what was read to be committed", SHORT, || {
            let shown = workspace.run(&["ledger", "show", "pipeline.yaml"], SHORT)?.output;
            let is_done = (0..2).all(|partition| shown.contains(&format!("{topic}[{partition}]  next 1000")));
            Ok(Look::when(is_done, shown))
        })?;
        // The fetches that are on their way come back empty meanwhile.
        process.signal(Signal::Stop)?;
        thread::sleep(Duration::from_secs(2));
        kafka.produce(&topic, of_both(2_000..3_000))?;
        kafka.delete_records(&topic, 1, 1_250)?;
        process.signal(Signal::Continue)?;
        ids.extend((2_000..3_000).filter(|id| id % 2 == 0 || *id >= 2_500));
        wait_for(&mut process, missing, 550.0)?;
        wait_for(&mut process, processed, 1_450.0)?;
        let finished = end(process, Signal::Terminate, SHORT)?;
        let deleted = "the source has deleted records that were never read";
        finished.expect(0, &[deleted, "from=500 to=800", "from=1000 to=1250"])?;
        for round in 0..2 {
            let said = run_and_compare(workspace, &ids).with_context(|| format!("round {round}"))?;
            for (partition, count) in [(0, 300), (1, 250)] {
                let note = format!(
                    "note: {topic}[{partition}]: {count} offsets were deleted by the source before they were read"
                );
                ensure!(said.contains(&note), "{note:?} is missing: {said}");
            }
        }
        Ok(())
    })
}

/// Scenario: a topic is deleted and made anew, with more records than before, while the pipeline is down; then another one while
/// it runs.
/// Guarantees: the pipeline ends with exit 1 and says why and what to do; nothing of the new topic is read from the old offsets;
/// a pipeline with another name reads it from its start.
#[test]
fn a_topic_that_was_made_anew_is_refused() -> anyhow::Result<()> {
    scenario("made-anew", |workspace| {
        let kafka = kafka()?;
        for is_running in [false, true] {
            let topic = unique("anew");
            kafka.create_topic(&topic, 1)?;
            kafka.produce(&topic, (0..500).map(|id| record(id, 0)))?;
            let old: BTreeSet<u64> = (0..500).collect();
            let mut configuration = configure(workspace, kafka, &topic)?;
            run_and_compare(workspace, &old)?;
            let process = if is_running {
                let mut process = workspace.start(&["run", "pipeline.yaml"])?;
                process.wait_for_text("partitions assigned", SHORT)?;
                // So that it fetches at the end of the old one.
                thread::sleep(Duration::from_secs(2));
                Some(process)
            } else {
                None
            };
            kafka.delete_topic(&topic)?;
            kafka.create_topic(&topic, 1)?;
            kafka.produce(&topic, (1_000..3_000).map(|id| record(id, 0)))?;
            let refused = match process {
                Some(process) => finish(process, LONG)?,
                None => workspace.run(&["run", "pipeline.yaml", "--until-end"], SHORT)?,
            };
            refused.expect(1, &[topic.as_str(), "deleted and made anew", "another `name`"])?;
            compare(workspace, &old)?;
            configuration.name = "again".to_owned();
            configuration.sink = local_sink(&workspace.path().join("lake-again"));
            workspace.write("again.yaml", configuration.yaml())?;
            workspace.run(&["run", "again.yaml", "--until-end"], SHORT)?.expect(0, &[])?;
            let lake = workspace.path().join("lake-again");
            let seen = Lake::Local(&lake).read(Reader::DuckDb, &[], workspace.path())?;
            let new = Expected::new(Box::new(|| Box::new((1_000..3_000).map(|id| json!({"id": id}).to_string()))));
            seen.compare(&new)?.expect_exact()?;
            for folder in ["lake", "lake-again"] {
                std::fs::remove_dir_all(workspace.path().join(folder))?;
            }
        }
        Ok(())
    })
}
