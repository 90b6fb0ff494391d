//! What the repository gives a newcomer: the demo, the example configurations, the compose file.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Lake, Reader},
    program::{Workspace, repository},
    services::{
        download,
        process::{Ended, Process},
    },
};

use crate::shared::{LONG, SHORT, scenario};

/// Scenario: `demo` with few records.
/// Guarantees: it needs no server, ends by itself, says what it did, and leaves files that DuckDB reads.
#[test]
fn the_demo_runs() -> anyhow::Result<()> {
    scenario("demo", |workspace| {
        let dist = repository().join("plugins/dist");
        let dist = dist.to_str().context("a path that is not text")?;
        let finished = workspace.run(&["demo", "--records", "5000", "--plugins", dist], LONG)?;
        finished.expect(0, &["records", "duckdb"])?;
        let lake = workspace.path().join("demo-lake");
        let seen = Lake::Local(&lake).read(Reader::DuckDb, &["country"], workspace.path())?;
        let rows = fs::read_to_string(&seen.rows)?.lines().count();
        ensure!(rows > 1_000 && rows < 5_000, "{rows} rows of 5,000 records\n{}", finished.output);
        Ok(())
    })
}

/// Scenario: each file in `config/` is validated with the variables that it asks for.
/// Guarantees: no example is out of date.
#[test]
fn every_example_is_valid() -> anyhow::Result<()> {
    scenario("examples", |_| {
        let mut examples = 0;
        for entry in fs::read_dir(repository().join("config"))? {
            let path = entry?.path();
            let text = fs::read_to_string(&path).unwrap_or_default();
            let is_pipeline = text.lines().any(|line| line.starts_with("source:") || line.starts_with("pipelines:"));
            if path.extension().is_none_or(|extension| extension != "yaml") || !is_pipeline {
                continue;
            }
            examples += 1;
            let mut here = Workspace::new("example")?;
            for name in variables(&text) {
                here.set(&name, "1");
            }
            let path = path.to_str().context("a path that is not text")?;
            here.run(&["validate", path], SHORT)?.expect(0, &[]).with_context(|| path.to_owned())?;
        }
        ensure!(examples >= 4, "only {examples} examples in config/");
        Ok(())
    })
}

/// The names in `${NAME}`, `${NAME:-...}`, `${NAME:?...}`.
fn variables(text: &str) -> BTreeSet<String> {
    let names = text.split("${").skip(1).map(|rest| {
        rest.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect::<String>()
    });
    names.collect()
}

/// Scenario: `docker-compose.yml` goes through a YAML parser; no container engine runs here.
/// Guarantees: the five services are there, images are pinned by version, and what is mounted exists.
#[test]
fn the_compose_file_holds_together() -> anyhow::Result<()> {
    scenario("compose", |workspace| {
        let mut command = std::process::Command::new(download::python()?);
        command.arg(repository().join("tests/python/check_compose.py")).arg(repository().join("docker-compose.yml"));
        let mut process = Process::start("check_compose.py", command, &workspace.path().join("compose.log"))?;
        let ended = process.wait(Duration::from_mins(1))?;
        ensure!(ended == Ended::Code(0), "{}", process.log());
        Ok(())
    })
}
