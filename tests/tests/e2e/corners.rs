//! What other readers make of the corners of JSON, as the README's table says.

use std::fs;

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{lake::run_python, program::repository};
use serde_json::json;

use crate::shared::scenario;

/// Scenario: pyarrow and DuckDB read each record of the table "Corners of JSON".
/// Guarantees: the README says of them what they do. What this program does is held against the table beside its decoder.
#[test]
fn corners_of_json_are_told_as_others_read_them() -> anyhow::Result<()> {
    scenario("corners", |workspace| {
        let said = run_python("json_corners.py", &json!({"folder": workspace.path()}), workspace.path())?;
        let found: Vec<[String; 2]> = serde_json::from_str(said.trim())?;
        let readme = fs::read_to_string(repository().join("README.md"))?;
        let (_, section) = readme.split_once("### Corners of JSON").context("the README has no such section")?;
        let table = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        let rows: Vec<Vec<&str>> = table
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        ensure!(rows.len() == found.len(), "{} rows of the table, {} answers", rows.len(), found.len());
        for (row, found) in rows.iter().zip(&found) {
            ensure!(row.get(2..) == Some(&[found[0].as_str(), found[1].as_str()]), "{row:?} is {found:?}");
        }
        Ok(())
    })
}
