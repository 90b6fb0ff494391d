//! A plugin that fails batch after batch, and the pipeline that waits for it.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    http,
    lake::{Lake, Reader},
    program::{Configuration, Workspace, end, local_sink, plugin},
    services::{free_port, process::Signal},
    wait::{self, Look},
};
use serde_json::{Value, json};

use crate::shared::{LONG, SHORT, scenario};

/// Records of each pipeline, in ten batches.
const RECORDS: u64 = 1000;

/// A pipeline over the file, with a plugin that fails on one batch until a try.
fn pipeline(name: &str, lake: &Path, batch: u32, attempt: u32, address: Option<&str>) -> String {
    let source = "  type: file\n  paths: [in.ndjson]\n  batch_size: 100\n".to_owned();
    let mut configuration = Configuration::new(name, source, local_sink(lake));
    configuration.schema = "schema:\n  mode: declared\n  fields: [{name: id, type: int64}]\n".into();
    configuration.plugins = format!(
        "plugins:
  - name: attacker
    path: {}
    config: {{crime: trap-up-to, from: {batch}, batch: {batch}, attempt: {attempt}}}
    on_trap: {{retries: 0, open_circuit_after: 1, backoff: {{from: 50ms, to: 200ms}}}}
",
        plugin("hostile").display()
    );
    // Nothing but the open circuit asks for a commit.
    configuration.pipeline = "  commit_interval: 1h\n  lanes: 1\n".into();
    configuration.telemetry = address.map_or_else(String::new, |address| format!("  listen: \"{address}\"\n"));
    configuration.yaml()
}

/// The ids in a lake, in the order of reading.
fn ids(lake: &Path, workspace: &Workspace) -> anyhow::Result<Vec<u64>> {
    let rows = Lake::Local(lake).read(Reader::PyArrow, &[], workspace.path())?.rows;
    let id = |line: &str| {
        let row: Value = serde_json::from_str(line)?;
        row.get("id").and_then(Value::as_u64).with_context(|| format!("no id in {line}"))
    };
    std::fs::read_to_string(rows)?.lines().map(id).collect()
}

/// Scenario: the plugin of one of two pipelines fails on the sixth batch for ever; the process is stopped, and started again with
/// a plugin that fails on the third batch from there seven times.
/// Guarantees: what was read before is committed, though no interval has passed; `/readyz` names plugin and reason, and the metric
/// is 1; the other pipeline ends; SIGTERM ends the wait with exit 0; after all each row is there once, and none in the dead letters.
#[test]
fn an_open_circuit_holds_up_its_pipeline_alone_and_loses_nothing() -> anyhow::Result<()> {
    scenario("circuit", |workspace| {
        let text: String = (0..RECORDS).map(|number| json!({"id": number}).to_string() + "\n").collect();
        workspace.write("in.ndjson", text)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let (sick, sound) = (workspace.path().join("sick"), workspace.path().join("sound"));
        workspace.write("sick.yaml", pipeline("sick", &sick, 5, 1_000_000, Some(&address)))?;
        workspace.write("sound.yaml", pipeline("sound", &sound, 0, 0, None))?;
        let mut process = workspace.start(&["run", "sick.yaml", "sound.yaml"])?;
        wait::until("an open circuit beside a pipeline that is done", SHORT, || {
            process.ensure_running()?;
            let Ok((status, page)) = http::get(&address, "/readyz") else {
                return Ok(Look::NotYet("no page".to_owned()));
            };
            let is_open = status == 503 && page.contains("sick: waiting: plugin attacker trapped in `process`");
            Ok(Look::when(is_open && page.contains("sound: stopped"), page))
        })?;
        let committed = wait::until("five batches in the lake", SHORT, || {
            let ids = ids(&sick, workspace).unwrap_or_default();
            Ok(if ids.is_empty() { Look::NotYet("no row".to_owned()) } else { Look::Done(ids) })
        })?;
        ensure!(committed == (0..500).collect::<Vec<_>>(), "{committed:?}");
        ensure!(ids(&sound, workspace)?.len() as u64 == RECORDS, "the other pipeline lost rows");
        let (status, health) = http::get(&address, "/healthz")?;
        ensure!(status == 200, "{health}");
        let (_, page) = http::get(&address, "/metrics")?;
        let open =
            page.lines().find(|line| line.starts_with("fs_data_sink_plugin_circuit_open{") && line.contains("sick"));
        ensure!(open.is_some_and(|line| line.ends_with(" 1")), "{open:?}");
        end(process, Signal::Terminate, SHORT)?
            .expect(0, &["circuit open", "stopped while the circuit of plugin attacker"])?;

        workspace.write("sick.yaml", pipeline("sick", &sick, 2, 8, None))?;
        let finished = workspace.run(&["run", "sick.yaml", "--until-end"], LONG)?;
        finished.expect(0, &["circuit open", "circuit closed"])?;
        let all = ids(&sick, workspace)?;
        ensure!(all.len() as u64 == RECORDS, "{} rows", all.len());
        ensure!(all.into_iter().collect::<BTreeSet<_>>().len() as u64 == RECORDS, "a row is there twice");
        let letters = Lake::Local(&sick).dead_letters("sick")?;
        ensure!(letters.is_empty(), "{} dead letters", letters.len());
        Ok(())
    })
}
