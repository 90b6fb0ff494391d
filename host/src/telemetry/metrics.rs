//! Every metric, in one table. OpenTelemetry names; Prometheus sees them with `_` for `.`.
//!
//! Comes in: calls from the rooms. Goes out: the global OpenTelemetry meter, which `telemetry::start` connects to
//! OTLP and to `/metrics`. Before that, and in tests, the calls cost nothing and go nowhere.

use std::sync::Arc;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter},
};

/// The metrics of one pipeline. Cheap to clone; every point carries `pipeline`, `tenant`, `source` and `sink`.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Instruments>);

/// The instruments, with the attributes that all points share.
#[derive(Debug)]
struct Instruments {
    /// `pipeline`, `tenant`, `source`, `sink`.
    labels: Vec<KeyValue>,
    /// Batches that went through (the original's name).
    batches_processed: Counter<u64>,
    /// Records that went through (the original's name).
    records_processed: Counter<u64>,
    /// Failures of any kind (the original's name), by `stage`.
    errors: Counter<u64>,
    /// Bytes read from the source.
    source_bytes: Counter<u64>,
    /// Records refused, by `stage`, `plugin`, `code`.
    rejected_records: Counter<u64>,
    /// Records that plugins left out, by `plugin`.
    filtered_records: Counter<u64>,
    /// Rows that were dropped since `dead_letter` is `none` or `on_reject` is `drop`.
    dropped_records: Counter<u64>,
    /// Records without a value that were passed over, as configured.
    skipped_tombstones: Counter<u64>,
    /// Files made visible.
    files_published: Counter<u64>,
    /// Their bytes.
    file_bytes: Histogram<u64>,
    /// From closing a generation to the committed source position.
    commit_seconds: Histogram<f64>,
    /// Tries again after a failure that may pass, by `operation`.
    retries: Counter<u64>,
    /// Time spent in a plugin's calls, by `plugin` and `outcome`.
    plugin_seconds: Histogram<f64>,
    /// Time that a plugin's own code ran, by `plugin`.
    plugin_cpu_seconds: Counter<f64>,
    /// Traps and timeouts, by `plugin` and `reason`.
    plugin_traps: Counter<u64>,
    /// Bytes of the snapshots of plugins that keep state, by `plugin`.
    plugin_state_bytes: Histogram<u64>,
    /// Limits of a plugin that were hit, by `plugin` and `limit`.
    plugin_limit_hits: Counter<u64>,
    /// 1 while a lane waits since the plugin fails batch after batch, by `plugin`.
    plugin_circuit_open: Gauge<u64>,
    /// Bytes of memories and tables that all instances of a plugin hold, by `plugin`.
    plugin_memory_bytes: Gauge<u64>,
    /// Most that one of them ever held, by `plugin`.
    plugin_memory_peak_bytes: Gauge<u64>,
    /// Log bytes of a plugin that were above its limit, by `plugin`.
    plugin_log_bytes_dropped: Counter<u64>,
    /// Metric names of a plugin that were above the limit, by `plugin`.
    plugin_metrics_dropped: Counter<u64>,
    /// Counters that plugins keep, by `plugin` and `name`.
    plugin_count: Counter<u64>,
    /// Gauges that plugins keep, by `plugin` and `name`.
    plugin_gauge: Gauge<f64>,
    /// What plugins tried and were not allowed, by `plugin`, `grant` and `reason`.
    plugin_refusals: Counter<u64>,
    /// Bytes that plugins sent away, by `plugin` and `grant`.
    plugin_egress_bytes: Counter<u64>,
    /// How long the source waited, by `reason`.
    wait_seconds: Counter<f64>,
    /// Bytes in flight against the memory budget.
    memory_bytes: Gauge<u64>,
    /// Files open now.
    open_files: UpDownCounter<i64>,
    /// Records behind the end of a source partition, by `topic` and `partition`.
    consumer_lag: Gauge<u64>,
    /// Records that the source deleted before they were read, by `topic`.
    missing_records: Counter<u64>,
    /// Lanes that began anew, since another process took over or the ledger was out of reach.
    lane_restarts: Counter<u64>,
    /// Files that were merged into others.
    merged_files: Counter<u64>,
    /// Files that are not merged since they cannot be read or are not ours.
    unmerged_files: Counter<u64>,
}

impl Metrics {
    /// The metrics of a pipeline, on the global meter.
    #[must_use]
    pub fn new(pipeline: &str, tenant: &str, source: &'static str, sink: &'static str) -> Self {
        Self::on(&global::meter("fs_data_sink"), pipeline, tenant, source, sink)
    }

    /// The same on a certain meter.
    pub(super) fn on(meter: &Meter, pipeline: &str, tenant: &str, source: &'static str, sink: &'static str) -> Self {
        let labels = vec![
            KeyValue::new("pipeline", pipeline.to_owned()),
            KeyValue::new("tenant", tenant.to_owned()),
            KeyValue::new("source", source),
            KeyValue::new("sink", sink),
        ];
        let instruments = Instruments::new(meter, labels);
        // The original's three are there from the start, so that an alert on them has something to look at.
        for counter in [&instruments.batches_processed, &instruments.records_processed, &instruments.errors] {
            counter.add(0, &instruments.labels);
        }
        Self(Arc::new(instruments))
    }

    /// Metrics that go nowhere in particular; for tests.
    #[must_use]
    pub fn detached() -> Self {
        Self::new("test", "test", "test", "test")
    }

    /// The shared attributes and some more.
    fn with(&self, more: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
        self.0.labels.iter().cloned().chain(more).collect()
    }

    /// A batch of so many records and bytes came from the source.
    pub fn batch_read(&self, records: u64, bytes: u64) {
        self.0.batches_processed.add(1, &self.0.labels);
        self.0.records_processed.add(records, &self.0.labels);
        self.0.source_bytes.add(bytes, &self.0.labels);
    }

    /// Something failed in a stage.
    pub fn error(&self, stage: &'static str) {
        self.0.errors.add(1, &self.with([KeyValue::new("stage", stage)]));
    }

    /// Records were refused.
    pub fn rejected(&self, stage: &'static str, plugin: &str, code: &str, records: u64) {
        let labels = self.with([
            KeyValue::new("stage", stage),
            KeyValue::new("plugin", plugin.to_owned()),
            KeyValue::new("code", code.to_owned()),
        ]);
        self.0.rejected_records.add(records, &labels);
    }

    /// A plugin left records out.
    pub fn filtered(&self, plugin: &str, records: u64) {
        self.0.filtered_records.add(records, &self.with([KeyValue::new("plugin", plugin.to_owned())]));
    }

    /// Refused records were dropped, as configured.
    pub fn dropped(&self, records: u64) {
        self.0.dropped_records.add(records, &self.0.labels);
    }

    /// Records without a value were passed over, as configured.
    pub fn skipped(&self, records: u64) {
        if records > 0 {
            self.0.skipped_tombstones.add(records, &self.0.labels);
        }
    }

    /// A file became visible.
    pub fn file_published(&self, bytes: u64) {
        self.0.files_published.add(1, &self.0.labels);
        self.0.file_bytes.record(bytes, &self.0.labels);
    }

    /// A generation was committed.
    pub fn committed(&self, seconds: f64) {
        self.0.commit_seconds.record(seconds, &self.0.labels);
    }

    /// An operation is tried again.
    pub fn retried(&self, operation: &'static str) {
        self.0.retries.add(1, &self.with([KeyValue::new("operation", operation)]));
    }

    /// A plugin call ended.
    pub fn plugin_called(&self, plugin: &str, outcome: &'static str, seconds: f64) {
        let labels = self.with([KeyValue::new("plugin", plugin.to_owned()), KeyValue::new("outcome", outcome)]);
        self.0.plugin_seconds.record(seconds, &labels);
    }

    /// A plugin's own code ran.
    pub fn plugin_computed(&self, plugin: &str, seconds: f64) {
        self.0.plugin_cpu_seconds.add(seconds, &self.with([KeyValue::new("plugin", plugin.to_owned())]));
    }

    /// A plugin trapped or ran out of time.
    pub fn plugin_trapped(&self, plugin: &str, reason: &'static str) {
        let labels = self.with([KeyValue::new("plugin", plugin.to_owned()), KeyValue::new("reason", reason)]);
        self.0.plugin_traps.add(1, &labels);
    }

    /// A plugin said its state, of so many bytes.
    pub fn plugin_state(&self, plugin: &str, bytes: u64) {
        self.0.plugin_state_bytes.record(bytes, &self.with([KeyValue::new("plugin", plugin.to_owned())]));
    }

    /// A plugin hit a limit.
    pub fn plugin_limit_hit(&self, plugin: &str, limit: &'static str) {
        let labels = self.with([KeyValue::new("plugin", plugin.to_owned()), KeyValue::new("limit", limit)]);
        self.0.plugin_limit_hits.add(1, &labels);
    }

    /// Whether a lane waits for a plugin that fails batch after batch.
    pub fn plugin_circuit(&self, plugin: &str, is_open: bool) {
        self.0.plugin_circuit_open.record(is_open.into(), &self.with([KeyValue::new("plugin", plugin.to_owned())]));
    }

    /// What the instances of a plugin hold together, and the most that one ever held.
    pub fn plugin_memory(&self, plugin: &str, bytes: u64, peak_bytes: u64) {
        let labels = self.with([KeyValue::new("plugin", plugin.to_owned())]);
        self.0.plugin_memory_bytes.record(bytes, &labels);
        self.0.plugin_memory_peak_bytes.record(peak_bytes, &labels);
    }

    /// A plugin logged more than it may.
    pub fn plugin_log_dropped(&self, plugin: &str, bytes: u64) {
        self.0.plugin_log_bytes_dropped.add(bytes, &self.with([KeyValue::new("plugin", plugin.to_owned())]));
    }

    /// A plugin used more metric names than it may.
    pub fn plugin_metric_dropped(&self, plugin: &str) {
        self.0.plugin_metrics_dropped.add(1, &self.with([KeyValue::new("plugin", plugin.to_owned())]));
    }

    /// A counter of a plugin.
    pub fn plugin_count(&self, plugin: &str, name: &str, amount: u64) {
        let labels = [KeyValue::new("plugin", plugin.to_owned()), KeyValue::new("name", name.to_owned())];
        self.0.plugin_count.add(amount, &self.with(labels));
    }

    /// A gauge of a plugin.
    pub fn plugin_gauge(&self, plugin: &str, name: &str, value: f64) {
        let labels = [KeyValue::new("plugin", plugin.to_owned()), KeyValue::new("name", name.to_owned())];
        self.0.plugin_gauge.record(value, &self.with(labels));
    }

    /// A plugin tried what it was not granted, or more of it than it may.
    pub fn plugin_refused(&self, plugin: &str, grant: &'static str, reason: &'static str) {
        let labels = [
            KeyValue::new("plugin", plugin.to_owned()),
            KeyValue::new("grant", grant),
            KeyValue::new("reason", reason),
        ];
        self.0.plugin_refusals.add(1, &self.with(labels));
    }

    /// A plugin sent bytes away.
    pub fn plugin_egress(&self, plugin: &str, grant: &'static str, bytes: u64) {
        let labels = [KeyValue::new("plugin", plugin.to_owned()), KeyValue::new("grant", grant)];
        self.0.plugin_egress_bytes.add(bytes, &self.with(labels));
    }

    /// The source waited.
    pub fn waited(&self, reason: &'static str, seconds: f64) {
        self.0.wait_seconds.add(seconds, &self.with([KeyValue::new("reason", reason)]));
    }

    /// The source had deleted so many records before they were read.
    pub fn gap(&self, topic: &str, records: u64) {
        self.0.missing_records.add(records, &self.with([KeyValue::new("topic", topic.to_owned())]));
    }

    /// A lane begins anew.
    pub fn lane_restarted(&self) {
        self.0.lane_restarts.add(1, &self.0.labels);
    }

    /// So many files became one.
    pub fn merged(&self, files: u64) {
        self.0.merged_files.add(files, &self.0.labels);
    }

    /// A file is left alone by merging.
    pub fn left_unmerged(&self) {
        self.0.unmerged_files.add(1, &self.0.labels);
    }

    /// Bytes in flight now.
    pub fn memory_in_flight(&self, bytes: u64) {
        self.0.memory_bytes.record(bytes, &self.0.labels);
    }

    /// Files were opened (positive) or closed (negative).
    pub fn open_files_changed(&self, by: i64) {
        self.0.open_files.add(by, &self.0.labels);
    }

    /// Records behind the end of a partition.
    pub fn consumer_lag(&self, topic: &str, partition: i32, records: u64) {
        let labels = [KeyValue::new("topic", topic.to_owned()), KeyValue::new("partition", i64::from(partition))];
        self.0.consumer_lag.record(records, &self.with(labels));
    }
}

impl Instruments {
    /// All instruments of a meter.
    fn new(meter: &Meter, labels: Vec<KeyValue>) -> Self {
        let counter = |name: &'static str| meter.u64_counter(name).build();
        Self {
            labels,
            batches_processed: counter("fs_data_sink.batches_processed"),
            records_processed: counter("fs_data_sink.records_processed"),
            errors: counter("fs_data_sink.errors"),
            source_bytes: counter("fs_data_sink.source_bytes"),
            rejected_records: counter("fs_data_sink.rejected_records"),
            filtered_records: counter("fs_data_sink.filtered_records"),
            dropped_records: counter("fs_data_sink.dropped_records"),
            skipped_tombstones: counter("fs_data_sink.skipped_tombstones"),
            files_published: counter("fs_data_sink.files_published"),
            file_bytes: meter
                .u64_histogram("fs_data_sink.file_bytes")
                .with_boundaries(vec![1e4, 1e5, 1e6, 1e7, 5e7, 1e8, 2e8, 5e8, 1e9])
                .build(),
            commit_seconds: meter
                .f64_histogram("fs_data_sink.commit_seconds")
                .with_boundaries(vec![0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0])
                .build(),
            retries: counter("fs_data_sink.retries"),
            plugin_seconds: meter
                .f64_histogram("fs_data_sink.plugin_seconds")
                .with_boundaries(vec![1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
                .build(),
            plugin_cpu_seconds: meter.f64_counter("fs_data_sink.plugin_cpu_seconds").build(),
            plugin_traps: counter("fs_data_sink.plugin_traps"),
            plugin_state_bytes: meter
                .u64_histogram("fs_data_sink.plugin_state_bytes")
                .with_boundaries(vec![1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
                .build(),
            plugin_limit_hits: counter("fs_data_sink.plugin_limit_hits"),
            plugin_circuit_open: meter.u64_gauge("fs_data_sink.plugin_circuit_open").build(),
            plugin_memory_bytes: meter.u64_gauge("fs_data_sink.plugin_memory_bytes").build(),
            plugin_memory_peak_bytes: meter.u64_gauge("fs_data_sink.plugin_memory_peak_bytes").build(),
            plugin_log_bytes_dropped: counter("fs_data_sink.plugin_log_bytes_dropped"),
            plugin_metrics_dropped: counter("fs_data_sink.plugin_metrics_dropped"),
            plugin_count: counter("fs_data_sink.plugin_count"),
            plugin_gauge: meter.f64_gauge("fs_data_sink.plugin_gauge").build(),
            plugin_refusals: counter("fs_data_sink.plugin_refusals"),
            plugin_egress_bytes: counter("fs_data_sink.plugin_egress_bytes"),
            wait_seconds: meter.f64_counter("fs_data_sink.wait_seconds").build(),
            memory_bytes: meter.u64_gauge("fs_data_sink.memory_bytes").build(),
            open_files: meter.i64_up_down_counter("fs_data_sink.open_files").build(),
            consumer_lag: meter.u64_gauge("fs_data_sink.consumer_lag").build(),
            missing_records: meter.u64_counter("fs_data_sink.missing_records").build(),
            lane_restarts: meter.u64_counter("fs_data_sink.lane_restarts").build(),
            merged_files: counter("fs_data_sink.merged_files"),
            unmerged_files: counter("fs_data_sink.unmerged_files"),
        }
    }
}
