//! What exactly once asks of a store besides the files: counted by a proxy that passes everything on.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    program::{Configuration, Workspace, s3_sink},
    services::{
        s3::S3,
        s3_faults::{Kind, Plan, S3Faults},
    },
};

/// Commits of the shorter run.
const COMMITS_FEW: u16 = 20;

/// Commits of the longer run: enough for snapshots of the ledger, and for deleting what they replace.
const COMMITS_MANY: u16 = 220;

/// Rows of a commit.
const ROWS: u16 = 10;

/// How long a run may take.
const LIMIT: std::time::Duration = std::time::Duration::from_mins(3);

/// Requests a commit under exactly once, besides the three that bring a file into a bucket: the difference of a long run and a
/// short one, so what a start costs is not in it.
pub fn small_requests_a_commit(workspace: &Workspace, s3: &S3, prefix: &str) -> Result<f64> {
    let few = small_requests(workspace, s3, prefix, COMMITS_FEW)?;
    let many = small_requests(workspace, s3, prefix, COMMITS_MANY)?;
    let more = u32::try_from(many.saturating_sub(few))?;
    Ok(f64::from(more) / f64::from(COMMITS_MANY - COMMITS_FEW))
}

/// Requests of a run of so many commits.
fn small_requests(workspace: &Workspace, s3: &S3, prefix: &str, commits: u16) -> Result<usize> {
    let rows: Vec<String> = (0..commits * ROWS).map(|number| json!({"id": number}).to_string()).collect();
    let name = format!("requests-{commits}");
    workspace.write(&format!("{name}.ndjson"), rows.join("\n"))?;
    let proxy = S3Faults::start(&s3.access().endpoint, Plan::default())?;
    let source = format!("  type: file\n  paths: [\"{name}.ndjson\"]\n  batch_size: {ROWS}\n");
    let sink = s3_sink(&s3.access().through(&proxy.endpoint()), &format!("{prefix}-{commits}"));
    let pipeline = "  commit_interval: 1h\n  flush_interval_batches: 1\n  delivery: exactly_once\n".to_owned();
    let configuration = Configuration { pipeline, ..Configuration::new(&name, source, sink) };
    workspace.write(&format!("{name}.yaml"), configuration.yaml())?;
    workspace.run(&["run", &format!("{name}.yaml"), "--until-end"], LIMIT)?.expect(0, &[])?;
    let requests = proxy.requests();
    let of_files = [Kind::BeginUpload, Kind::UploadPart, Kind::CompleteUpload];
    let files = requests.get(&Kind::CompleteUpload).copied().context("no file was written")?;
    anyhow::ensure!(files == usize::from(commits), "{files} files in {commits} commits: {requests:?}");
    Ok(requests.iter().filter(|(kind, _)| !of_files.contains(kind)).map(|(_, count)| count).sum())
}
