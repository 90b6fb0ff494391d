//! Plugins that misbehave.

use anyhow::ensure;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, Workspace, kafka_source, local_sink, plugin},
};
use serde_json::json;

use crate::shared::{LONG, filled_topic, kafka, scenario, unique};

/// Records in the file, in three batches.
const RECORDS: u64 = 300;

/// What came of a crime.
struct Outcome {
    /// What the program said.
    output: String,
    /// Stage and code of each dead letter.
    reasons: Vec<(String, String)>,
    /// Rows in the lake.
    rows: u64,
}

/// Runs a crime over three batches.
fn commit(workspace: &Workspace, crime: &str, more: &str) -> anyhow::Result<Outcome> {
    let text: String = (0..RECORDS).map(|number| json!({"id": number, "text": "x"}).to_string() + "\n").collect();
    workspace.write("in.ndjson", text)?;
    let lake = workspace.path().join(crime).join("lake");
    let source = "  type: file\n  paths: [in.ndjson]\n  batch_size: 100\n".to_owned();
    let mut configuration = Configuration::new("hostile", source, local_sink(&lake));
    configuration.schema =
        "schema:\n  mode: declared\n  fields: [{name: id, type: int64}, {name: text, type: string}]\n".into();
    configuration.plugins = format!(
        "plugins:
  - name: attacker
    path: {}
    config: {{crime: {crime}{more}}}
    limits: {{memory: 64MiB, call_timeout: 300ms}}
    on_trap: {{retries: 1, then: dead_letter, backoff: {{from: 10ms, to: 100ms}}}}
",
        plugin("hostile").display()
    );
    configuration.pipeline = "  commit_interval: 1s\n  lanes: 1\n".into();
    workspace.write("pipeline.yaml", configuration.yaml())?;
    // Exit 0: the process lives, and goes on to the end.
    let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?;
    finished.expect(0, &[])?;
    let lake = Lake::Local(&lake);
    let letters = lake.dead_letters("hostile")?;
    for letter in &letters {
        ensure!(letter.line.get("plugin") == Some(&json!("attacker")), "no plugin named: {}", letter.line);
        ensure!(letter.value.is_some(), "the original bytes are missing: {}", letter.line);
    }
    let mut offsets: Vec<_> = letters.iter().map(|letter| letter.position.2).collect();
    offsets.sort_unstable();
    offsets.dedup();
    ensure!(offsets.len() == letters.len(), "a record became two dead letters");
    let rows = lake.read(Reader::PyArrow, &[], workspace.path())?.rows;
    let rows = std::fs::read_to_string(rows)?.lines().count() as u64;
    Ok(Outcome { output: finished.output, reasons: letters.into_iter().map(|letter| letter.reason).collect(), rows })
}

/// A crime in every batch: all records become dead letters for that reason.
fn every_batch(crime: &str, more: &str) -> anyhow::Result<()> {
    scenario(&format!("hostile-{crime}"), |workspace| {
        let Outcome { output, reasons, rows } = commit(workspace, crime, more)?;
        ensure!(
            reasons.len() as u64 == RECORDS && rows == 0,
            "{} dead letters and {rows} rows of {RECORDS} records\n{output}",
            reasons.len()
        );
        let (stage, code) = reasons.first().cloned().unwrap_or_default();
        ensure!(stage == "plugin" && !code.is_empty(), "stage {stage:?}, code {code:?}");
        Ok(())
    })
}

/// Scenario: a plugin never returns from `process`.
/// Guarantees: each batch is given up after one retry and becomes dead letters; the process goes on.
#[test]
fn a_plugin_that_loops_for_ever() -> anyhow::Result<()> {
    every_batch("loop-in-process", "")
}

/// Scenario: a plugin allocates without end.
/// Guarantees: its memory limit ends it, not the machine; each batch becomes dead letters; the process goes on.
#[test]
fn a_plugin_that_allocates_without_end() -> anyhow::Result<()> {
    every_batch("allocate-for-ever", "")
}

/// Scenario: a plugin traps on every batch.
/// Guarantees: each batch becomes dead letters after one retry in a fresh instance; the process goes on.
#[test]
fn a_plugin_that_traps() -> anyhow::Result<()> {
    every_batch("trap", "")
}

/// Scenario: a plugin answers bytes that are no Arrow data.
/// Guarantees: nothing of it is believed; each batch becomes dead letters; the process goes on.
#[test]
fn a_plugin_that_answers_garbage() -> anyhow::Result<()> {
    every_batch("answer", GARBAGE)
}

/// A payload that replaces the batch by nonsense.
const GARBAGE: &str = ", payload: replace, bytes: \"AAECAwQFBgcICQ==\"";

/// Scenario: a plugin traps on the second of three batches, also when it is tried again.
/// Guarantees: that batch alone becomes dead letters; the rows of the others arrive.
#[test]
fn one_bad_batch_leaves_its_neighbours_alone() -> anyhow::Result<()> {
    scenario("hostile-one-batch", |workspace| {
        let Outcome { output, reasons, rows } = commit(workspace, "trap-on-batch", ", batch: 1")?;
        ensure!(reasons.len() == 100 && rows == 200, "{} dead letters and {rows} rows\n{output}", reasons.len());
        Ok(())
    })
}

/// Scenario: a plugin traps on the first try of each batch and works on the second.
/// Guarantees: the retry in a fresh instance gets every row through, and nothing becomes a dead letter.
#[test]
fn a_retry_in_a_fresh_instance_is_enough() -> anyhow::Result<()> {
    scenario("hostile-once", |workspace| {
        let Outcome { output, reasons, rows } = commit(workspace, "trap-once", "")?;
        ensure!(reasons.is_empty() && rows == RECORDS, "{} dead letters and {rows} rows\n{output}", reasons.len());
        Ok(())
    })
}

/// Scenario: a plugin loops for ever on every batch of a topic; a call may take longer than the broker waits for a member that is
/// silent. Beside it a pipeline that works, in the same process.
/// Guarantees: neither leaves its group while the plugin computes: partitions are assigned once; the rows of the one become dead
/// letters, those of the other arrive.
#[test]
fn a_plugin_that_loops_does_not_cost_the_place_in_a_group() -> anyhow::Result<()> {
    scenario("hostile-heartbeat", |workspace| {
        let kafka = kafka()?;
        let records = filled_topic(kafka, "heartbeat", 11, 3_000)?;
        let pipeline = |name: &str| {
            let lake = workspace.path().join(name);
            let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("heartbeat"));
            let mut configuration = Configuration::new(name, source, local_sink(&lake) + PARTITION_BY);
            configuration = configuration.with_records_schema_and_plugins();
            configuration.pipeline = "  commit_interval: 1s\n  lanes: 1\n".into();
            configuration
        };
        workspace.write("sound.yaml", pipeline("sound").yaml())?;
        let mut looping = pipeline("looping");
        looping.plugins = format!(
            "plugins:\n  - path: {}\n    config: {{crime: loop-in-process}}\n    limits: {{call_timeout: 2s}}\n    on_trap: {{retries: 0, \
             open_circuit_after: 0}}\n",
            plugin("hostile").display()
        );
        workspace.write("looping.yaml", looping.yaml())?;
        let finished = workspace.run(&["run", "looping.yaml", "sound.yaml", "--until-end"], LONG)?;
        finished.expect(0, &["plugin-timeout"])?;
        for name in ["looping", "sound"] {
            let lines = finished.output.lines().filter(|line| line.contains(&format!("pipeline={name}")));
            let assigned = lines.filter(|line| line.contains("partitions assigned")).count();
            ensure!(assigned == 1, "{name}: {assigned} assignments\n{}", finished.output);
        }
        ensure!(!finished.output.contains("partitions were lost"), "a session expired\n{}", finished.output);
        let letters = Lake::Local(&workspace.path().join("looping")).dead_letters("looping")?;
        ensure!(letters.len() == 3_000, "{} dead letters", letters.len());
        let lake = workspace.path().join("sound");
        let seen = Lake::Local(&lake).read(Reader::PyArrow, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, 3_000))?.expect_exact()
    })
}
