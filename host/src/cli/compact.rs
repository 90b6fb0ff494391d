//! `fs-data-sink compact`: merges small files of each pipeline, once. May run beside the pipelines, and be killed at any moment.

use clap::Args;

use super::{ConfigArguments, DONE, FAILED, answer, run, tell};
use crate::{
    config::Config,
    error::PipelineError,
    pipeline::compact::{Compacted, MergeReport, compact},
    telemetry,
};

/// What `compact` takes.
#[derive(Debug, Args)]
pub(super) struct CompactArguments {
    /// The configuration of the pipelines.
    #[command(flatten)]
    config: ConfigArguments,
    /// Also merge files of the period that is still running.
    #[arg(long)]
    all: bool,
}

/// Does it for every pipeline; the exit code.
pub(super) fn main(arguments: &CompactArguments) -> u8 {
    let config = match arguments.config.load_pipelines() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let done = run::Runtimes::start().and_then(|runtimes| {
        let compute = runtimes.compute.handle().clone();
        runtimes.io.block_on(compact_all(config, arguments.all, &compute))
    });
    match done {
        Ok(()) => DONE,
        Err(error) => {
            tell(&format!("fs-data-sink: {}", error.full_message()));
            FAILED
        }
    }
}

/// One pipeline after the other.
async fn compact_all(config: Config, is_all: bool, compute: &tokio::runtime::Handle) -> Result<(), PipelineError> {
    let telemetry = telemetry::start(&config.telemetry)?;
    let io = tokio::runtime::Handle::current();
    let mut outcome = Ok(());
    for pipeline in config.pipelines {
        let name = pipeline.name.to_string();
        let mut total = Total::default();
        let work = compute.spawn({
            let io = io.clone();
            async move {
                let mut told = |merged: &MergeReport| total.add(merged);
                let ended = compact(pipeline, io, is_all, &mut told).await;
                (ended, total)
            }
        });
        outcome = match work.await {
            Ok((Ok(ended), total)) => {
                answer(&total.words(&name, ended));
                Ok(())
            }
            Ok((Err(error), _)) => Err(error),
            Err(error) => Err(PipelineError::stop("merging ended abnormally").because(error)),
        };
        if outcome.is_err() {
            break;
        }
    }
    telemetry.shutdown().await;
    outcome
}

/// What was done for one pipeline.
#[derive(Debug, Default)]
struct Total {
    /// Merged files.
    merged: usize,
    /// Files that became them.
    files: usize,
    /// Their bytes.
    bytes_before: u64,
    /// Bytes of the merged files.
    bytes: u64,
    /// Rows in them.
    rows: u64,
}

impl Total {
    /// Prints a merge, and counts it.
    fn add(&mut self, report: &MergeReport) {
        let MergeReport { path, files, rows, bytes_before, bytes } = report;
        answer(&format!("{path}: {files} files, {rows} rows, {bytes_before} bytes before and {bytes} now"));
        self.merged += 1;
        self.files += files;
        self.bytes_before += bytes_before;
        self.bytes += bytes;
        self.rows += rows;
    }

    /// The last line.
    fn words(&self, pipeline: &str, ended: Compacted) -> String {
        let Self { merged, files, bytes_before, bytes, rows } = self;
        let done = match self.merged {
            0 => "nothing was due".to_owned(),
            _ => format!("{files} files became {merged}; {rows} rows, {bytes_before} bytes before and {bytes} now"),
        };
        match ended {
            Compacted::Done { left_alone: 0 } => format!("pipeline {pipeline}: {done}"),
            Compacted::Done { left_alone } => {
                format!("pipeline {pipeline}: {done}; {left_alone} files are left as they are, see the log")
            }
            Compacted::TakenOver => {
                format!("pipeline {pipeline}: {done}; another process merges its files now and goes on")
            }
        }
    }
}
