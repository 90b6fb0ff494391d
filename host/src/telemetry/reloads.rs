//! How often the configuration of the process was read again, and what came of it.

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};

/// The metrics, which have no labels of a pipeline.
#[derive(Debug)]
pub struct Reloads {
    /// `applied`: a configuration was taken, as far as it was right; `refused`: files, pipelines or the whole were not.
    reloads: Counter<u64>,
    /// Files that are wrong now.
    wrong_files: Gauge<u64>,
}

impl Reloads {
    /// On the global meter, once a process.
    #[must_use]
    pub fn new() -> Self {
        let meter = global::meter("fs_data_sink");
        let reloads = meter.u64_counter("fs_data_sink.reloads").build();
        for outcome in ["applied", "refused"] {
            reloads.add(0, &[KeyValue::new("outcome", outcome)]);
        }
        Self { reloads, wrong_files: meter.u64_gauge("fs_data_sink.configuration_wrong_files").build() }
    }

    /// So many configurations were taken.
    pub fn applied(&self, configurations: usize) {
        self.reloads.add(configurations as u64, &[KeyValue::new("outcome", "applied")]);
    }

    /// So much of one was refused.
    pub fn refused(&self, changes: usize) {
        self.reloads.add(changes as u64, &[KeyValue::new("outcome", "refused")]);
    }

    /// So many files are wrong now.
    pub fn wrong_files(&self, files: usize) {
        self.wrong_files.record(files as u64, &[]);
    }
}

impl Default for Reloads {
    fn default() -> Self {
        Self::new()
    }
}
