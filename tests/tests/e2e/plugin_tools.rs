//! What authors of plugins work with: `plugin inspect`, `plugin test`, `plugin bench`, and faults of a config at their line.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    program::{Configuration, Workspace, local_sink, plugin, repository},
    services::process::Signal,
    wait::{self, Look},
};
use serde_json::Value;

use crate::shared::{LONG, SHORT, scenario};

/// The path of an example plugin, as an argument.
fn built(name: &str) -> String {
    plugin(name).display().to_string()
}

/// What a command answered on its standard output as one line of JSON; its log lines are others.
fn json(workspace: &Workspace, arguments: &[&str], code: i32) -> anyhow::Result<Value> {
    let finished = workspace.run(arguments, LONG)?;
    finished.expect(code, &[])?;
    let line = finished.output.lines().find(|line| line.starts_with('{'));
    Ok(serde_json::from_str(line.with_context(|| finished.output.clone())?)?)
}

/// Rows of a country and a number; the third is broken.
fn rows(workspace: &Workspace) -> anyhow::Result<()> {
    let rows = "{\"country\": \"DE\", \"n\": 1}\n{\"country\": \"US\", \"n\": 2}\nbroken\n{\"country\": null, \"n\": 4}\n{\"country\": \"FR\", \"n\": 5}\n";
    workspace.write("rows.ndjson", rows).map(drop)
}

/// Scenario: plugins of every kind, and files that are none, are looked at.
/// Guarantees: what a person needs to know before granting anything is told, also of a plugin that asks for grants, and a file that
/// is no plugin is told in words.
#[test]
fn plugins_are_inspected() -> anyhow::Result<()> {
    scenario("plugin-inspect", |workspace| {
        let told = workspace.run(&["plugin", "inspect", &built("keep_values")], LONG)?;
        let words = [
            "keep-values",
            "keeps the rows whose column",
            "filter",
            "deterministic",
            "nothing between calls",
            "sha256",
            "\"values\": {",
        ];
        told.expect(0, &words)?;
        let told = workspace.run(&["plugin", "inspect", &built("enrich_lookup")], LONG)?;
        told.expect(
            0,
            &["wasi:keyvalue/store@0.2.0-draft needs grants.keyvalue", "  grants:\n    keyvalue:", "enrich"],
        )?;
        let told = json(workspace, &["plugin", "inspect", &built("count_windows"), "--json"], 0)?;
        ensure!(told["name"] == "count-windows" && told["deterministic"].is_boolean(), "{told}");
        ensure!(told["exports"].to_string().contains("fs-data-sink:plugin/state@"), "{told}");
        ensure!(told["sha256"].as_str().is_some_and(|digest| digest.len() == 64), "{told}");
        workspace.write("text.wasm", "no component")?;
        for (file, words) in [("text.wasm", "is not a WebAssembly component"), ("none.wasm", "cannot be opened")] {
            workspace.run(&["plugin", "inspect", file], SHORT)?.expect(1, &[file, words])?;
        }
        Ok(())
    })
}

/// Scenario: rows go through a plugin, the result is kept as what is expected, and then the config changes.
/// Guarantees: rows, refusals and their records are shown; exit code 0 while all is as expected, 1 with each difference when it is not,
/// 2 where the command or the config is wrong, at its line.
#[test]
fn a_plugin_is_tested_against_a_snapshot() -> anyhow::Result<()> {
    scenario("plugin-test", |workspace| {
        rows(workspace)?;
        workspace.write("config.yaml", "column: country\nvalues:\n  - DE\n  - FR\n")?;
        let file = built("keep_values");
        let test = ["plugin", "test", &file, "--input", "rows.ndjson", "--config", "config.yaml"];
        let with = |more: &[&'static str]| test.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
        let shown = workspace.run(&test, LONG)?;
        shown.expect(
            0,
            &[
                "country  n",
                "DE       1",
                "FR       5",
                "decode: bad-json: 1 rows (records 3)",
                "4 rows in, 2 out, 2 filtered, 0 refused",
            ],
        )?;
        workspace
            .run(&with(&["--expect", "out.ndjson"]), LONG)?
            .expect(2, &["out.ndjson does not exist; --update writes it"])?;
        workspace
            .run(&with(&["--expect", "out.ndjson", "--update"]), LONG)?
            .expect(0, &["3 lines written to out.ndjson"])?;
        let kept = fs::read_to_string(workspace.path().join("out.ndjson"))?;
        ensure!(
            kept.starts_with("{\"country\":\"DE\",\"n\":1}\n{\"country\":\"FR\",\"n\":5}\n{\"$rejected\":"),
            "{kept}"
        );
        workspace.run(&with(&["--expect", "out.ndjson"]), LONG)?.expect(0, &["as expected in out.ndjson"])?;
        workspace.write("config.yaml", "column: country\nvalues: [DE]\nkeep_nulls: true\n")?;
        let differs = workspace.run(&with(&["--expect", "out.ndjson"]), LONG)?;
        differs
            .expect(1, &["not as expected in out.ndjson:", "line 2 differs:", "country: expected \"FR\", got null"])?;
        let told = json(workspace, &with(&["--expect", "out.ndjson", "--json"]), 1)?;
        ensure!(told["rows_in"] == 4 && told["rows_out"] == 2 && told["memory_bytes"].as_u64() > Some(0), "{told}");
        ensure!(told["differences"].as_array().is_some_and(|lines| !lines.is_empty()), "{told}");
        workspace.write("config.yaml", "column: country\nvalues:\n  - DE\n  - 1.5\ncolour: red\n")?;
        let faults = [
            "config.yaml:4: values[1]: expected a text or a whole number or true or false, found the number 1.5",
            "config.yaml:5: colour: unknown key",
        ];
        workspace.run(&test, LONG)?.expect(2, &faults)?;
        let inline = ["plugin", "test", &file, "--input", "rows.ndjson", "--config", "{column: land, values: []}"];
        workspace.run(&inline, LONG)?.expect(2, &["the rows have no column \"land\""])?;
        workspace
            .run(&["plugin", "test", &file, "--input", "none.ndjson", "--config", "{column: n, values: []}"], SHORT)?
            .expect(2, &["none.ndjson is not a file"])
    })
}

/// Scenario: a plugin is tested as a pipeline configures it, with a grant, and over rows of an Arrow stream.
/// Guarantees: the YAML of the pipeline is enough, and typed files are read as the file source reads them.
#[test]
fn a_plugin_is_tested_as_its_pipeline_has_it() -> anyhow::Result<()> {
    scenario("plugin-test-pipeline", |workspace| {
        workspace
            .write("rows.ndjson", "{\"id\": \"1\", \"customer\": \"a\"}\n{\"id\": \"2\", \"customer\": \"x\"}\n")?;
        workspace.write("customers.csv", "key,name\na,Ann\nb,Bob\n")?;
        let source = "  type: file\n  paths: [rows.ndjson]\n".to_owned();
        let mut configuration = Configuration::new("orders", source, local_sink(Path::new("lake")));
        configuration.plugins = format!(
            "plugins:
  - name: keep
    path: {}
    config: {{column: id, values: [\"1\"]}}
  - name: names
    path: {}
    config: {{column: customer, bucket: customers, fields: [{{name: name}}]}}
    grants: {{keyvalue: [{{bucket: customers, table: {{path: customers.csv, key: key}}}}]}}
",
            built("keep_values"),
            built("enrich_lookup")
        );
        workspace.write("orders.yaml", configuration.yaml())?;
        let test = |plugin: &'static str| ["plugin", "test", "--pipeline", plugin, "--input", "rows.ndjson"];
        workspace.run(&test("orders.yaml#names"), LONG)?.expect(0, &["Ann", "null", "2 rows in, 2 out"])?;
        workspace.run(&test("orders.yaml"), SHORT)?.expect(2, &["behind a `#`: orders/keep, orders/names"])?;
        workspace.run(&test("orders.yaml#colour"), SHORT)?.expect(2, &["no plugin is called \"colour\""])?;
        let arrow = repository().join("host/src/ipc/testdata/pyarrow.arrows").display().to_string();
        let file = built("hostile");
        let typed = ["plugin", "test", &file, "--input", &arrow, "--config", "{crime: none}", "--json"];
        let told = json(workspace, &typed, 0)?;
        ensure!(told["rows_in"] == told["rows_out"] && told["rows_out"].as_u64() > Some(0), "{told}");
        ensure!(told["columns"].as_array().is_some_and(|columns| columns.len() > 1), "{told}");
        Ok(())
    })
}

/// Scenario: plugins that trap, loop, log without end, write escape sequences, or answer nonsense are tested and measured.
/// Guarantees: each ends soon, with exit code 1 and words that say what the plugin did; nothing that it said steers a terminal.
#[test]
fn hostile_plugins_are_tested_in_words() -> anyhow::Result<()> {
    scenario("plugin-test-hostile", |workspace| {
        workspace.write("rows.ndjson", "{\"n\": 1}\n{\"n\": 2}\n")?;
        let file = built("hostile");
        let crime = |crime: &str| format!("{{crime: {crime}}}");
        for (config, code, words) in [
            (crime("trap"), 1, "the plugin failed"),
            (crime("loop-in-process"), 1, "did not return from `process` within 2000 ms"),
            (crime("fill-memory-for-ever"), 1, "the plugin failed"),
            (crime("loop-in-open"), 2, "did not return from `open`"),
            (crime("invalid-config"), 2, "refuses its config: `keep` must not be empty"),
            ("{crime: log-for-ever, times: 5000}".to_owned(), 0, "logs more than"),
            ("{crime: long-error, times: 100}".to_owned(), 0, "plugin-failed: 2 rows (records 1, 2): long"),
            ("{crime: answer, keep: all, payload: extend, stream: \"010203\"}".to_owned(), 1, "the plugin failed"),
        ] {
            let finished =
                workspace.run(&["plugin", "test", &file, "--input", "rows.ndjson", "--config", &config], LONG)?;
            finished.expect(code, &[words]).with_context(|| config.clone())?;
            ensure!(!finished.output.contains('\u{1b}'), "{config}: an escape sequence came through");
        }
        let bench = ["plugin", "bench", &file, "--input", "rows.ndjson", "--config", "{crime: trap}"];
        workspace.run(&bench, LONG)?.expect(1, &["the plugin failed: "])
    })
}

/// Scenario: a plugin is watched, its config changes twice, once into a wrong one, and the rows change.
/// Guarantees: each change is followed by a new test, and a fault does not end the watching.
#[test]
fn a_plugin_is_tested_again_when_something_changes() -> anyhow::Result<()> {
    scenario("plugin-watch", |workspace| {
        rows(workspace)?;
        workspace.write("config.yaml", "{column: country, values: [DE]}")?;
        let file = built("keep_values");
        let arguments = ["plugin", "test", &file, "--input", "rows.ndjson", "--config", "config.yaml", "--watch"];
        let mut process = workspace.start(&arguments)?;
        let mut expect = |times: usize, words: &str| {
            wait::until(words, LONG, || {
                process.ensure_running()?;
                let log = process.log();
                let is_told = log.contains(words) && log.matches("waiting for a file to change").count() == times;
                Ok(Look::when(is_told, log))
            })
        };
        expect(1, "4 rows in, 1 out")?;
        workspace.write("config.yaml", "{column: country, values: [DE, 1.5]}")?;
        expect(2, "config.yaml:1: values[1]: expected")?;
        workspace.write("config.yaml", "{column: country, values: [DE, FR, US]}")?;
        expect(3, "4 rows in, 3 out")?;
        workspace.write("rows.ndjson", "{\"country\": \"DE\"}\n")?;
        expect(4, "1 rows in, 1 out")?;
        process.signal(Signal::Terminate)?;
        process.wait(SHORT).map(drop)
    })
}

/// Scenario: a healthy plugin is measured.
/// Guarantees: it is told beside the empty plugin, and what is compared.
#[test]
fn a_plugin_is_measured_beside_an_empty_one() -> anyhow::Result<()> {
    scenario("plugin-bench", |workspace| {
        rows(workspace)?;
        let file = built("keep_values");
        let bench = [
            "plugin",
            "bench",
            &file,
            "--input",
            "rows.ndjson",
            "--config",
            "{column: country, values: [DE]}",
            "--seconds",
            "1",
        ];
        workspace.run(&bench, LONG)?.expect(0, &["rows/s", "empty plugin", "are the plugin's own"])?;
        let told = json(workspace, &bench.iter().copied().chain(["--json"]).collect::<Vec<_>>(), 0)?;
        let per_row = |which: &str| told[which]["nanoseconds_per_row"].as_f64();
        ensure!(per_row("plugin") > Some(0.0) && per_row("empty") > Some(0.0), "{told}");
        Ok(())
    })
}

/// Scenario: the config of a plugin does not fit the JSON Schema that the plugin answers; nothing of the rows is declared.
/// Guarantees: `validate`, and `run` before it reads anything, tell every fault with the line of the YAML.
#[test]
fn faults_of_a_plugins_config_are_told_at_their_line() -> anyhow::Result<()> {
    scenario("plugin-config-schema", |workspace| {
        rows(workspace)?;
        let yaml = format!(
            "source: {{type: file, paths: [rows.ndjson]}}
plugins:
  - name: keep
    path: {}
    config:
      column: [country]
      values:
        - DE
        - {{code: FR}}
sink: {{type: local, base_path: lake}}
telemetry: {{listen: none}}
",
            built("keep_values")
        );
        workspace.write("pipeline.yaml", yaml)?;
        let words = [
            "the config of plugin keep does not fit its schema:",
            "pipeline.yaml:6: plugins[0].config.column: expected a text, found a list",
            "pipeline.yaml:9: plugins[0].config.values[1]: expected a text or a whole number or true or false, found keys and values",
        ];
        workspace.run(&["validate", "pipeline.yaml"], LONG)?.expect(2, &words)?;
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(2, &["pipeline.yaml:6", "pipeline.yaml:9"])?;
        ensure!(!workspace.path().join("lake/pipeline").exists(), "rows were written");
        Ok(())
    })
}
