//! An engine, a batch, and one line to run a plugin over it.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use arrow_array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array,
    new_null_array,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Schema, SchemaRef};
use fs_data_sink::{
    batch::{DecodedBatch, ENVELOPE_SCHEMA, Envelope, Origin, Rejection},
    config::{ConfigPlaces, Grants, OnReject, OnTrap, PluginConfig, PluginLimits},
    error::PipelineError,
    plugin::{Chain, ChainContext, ChainOutput, Compiler, LanePauses, PluginEngine},
    telemetry::metrics::Metrics,
    tenant::Tenant,
};
use serde_json::Value;

use crate::heard::Heard;

/// One engine for all tests, with compiled code kept between runs.
pub(crate) static ENGINE: LazyLock<PluginEngine> = LazyLock::new(|| {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugin-code");
    PluginEngine::with_compiler(Some(cache), compiler()).unwrap()
});

/// The program, which compiles for the tests as it does for itself.
pub(crate) fn compiler() -> Compiler {
    Compiler::Program(env!("CARGO_BIN_EXE_fs-data-sink").into())
}

/// A component that `make plugins` built.
pub(crate) fn built(name: &str) -> PathBuf {
    let folder = std::env::var_os("FS_DATA_SINK_PLUGINS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    path
}

/// Whether `hostile.wasm` was built with WASI. Debian's packages build it without, and then it can neither sleep nor exit.
pub(crate) fn hostile_has_wasi() -> bool {
    let component = std::fs::read(built("hostile.wasm")).unwrap();
    component.windows(b"wasi:cli/exit".len()).any(|name| name == b"wasi:cli/exit")
}

/// `hostile.wasm` with a crime, tight limits and short pauses.
pub(crate) fn hostile(config: &Value) -> PluginConfig {
    PluginConfig {
        name: "hostile".into(),
        path: built("hostile.wasm"),
        download: None,
        signature: None,
        sha256: None,
        config_json: config.to_string(),
        config_places: ConfigPlaces::default(),
        grants: Grants::default(),
        limits: PluginLimits {
            memory_bytes: 64 << 20,
            call_timeout: Duration::from_millis(500),
            output_rows: 100,
            output_bytes: 1 << 20,
            ..PluginLimits::default()
        },
        limits_written: Vec::new(),
        on_reject: OnReject::DeadLetter,
        on_trap: OnTrap {
            retries: 1,
            then: OnReject::DeadLetter,
            backoff_from: Duration::from_millis(1),
            backoff_to: Duration::from_millis(2),
            ..OnTrap::default()
        },
    }
}

/// The schema of [`batch`].
pub(crate) fn schema() -> SchemaRef {
    batch().rows.schema()
}

/// Ten rows: `n` counts from 0, `s` is its name, `x` is null in every third row. Row `i` came from record `9 - i`.
pub(crate) fn batch() -> DecodedBatch {
    let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("n", Arc::new(Int64Array::from_iter_values(0..10)) as ArrayRef, false),
        ("s", Arc::new(StringArray::from_iter_values(names)) as ArrayRef, false),
        ("x", Arc::new((0..10).map(|n| (n % 3 != 0).then_some(n)).collect::<Int32Array>()) as ArrayRef, true),
    ])
    .unwrap();
    let envelope = RecordBatch::try_new(
        Arc::clone(&ENVELOPE_SCHEMA),
        vec![
            Arc::new(StringArray::from_iter_values(["orders"; 10])),
            Arc::new(Int32Array::from(vec![0; 10])),
            Arc::new(Int64Array::from_iter_values(100..110)),
            Arc::new(TimestampMillisecondArray::from(vec![None; 10]).with_timezone("UTC")),
            Arc::new(BinaryArray::from(vec![None::<&[u8]>; 10])),
            Arc::new(BinaryArray::from(vec![None::<&[u8]>; 10])),
            new_null_array(ENVELOPE_SCHEMA.field(6).data_type(), 10),
        ],
    );
    let envelope = Envelope::try_new(envelope.unwrap()).unwrap();
    DecodedBatch { rows, origin: Origin::Records { envelope, rows: (0..10).rev().collect::<UInt32Array>() } }
}

/// A chain of plugins over the schema of [`batch`].
pub(crate) async fn open(plugins: &[PluginConfig]) -> Result<Chain, PipelineError> {
    open_in("test", plugins, schema(), LanePauses::detached()).await
}

/// A chain of plugins in a pipeline of a certain name, which its metrics have.
pub(crate) async fn open_in(
    pipeline: &str,
    plugins: &[PluginConfig],
    schema: SchemaRef,
    pauses: LanePauses,
) -> Result<Chain, PipelineError> {
    open_of("test".into(), pipeline, plugins, schema, pauses).await
}

/// The same of a certain tenant.
pub(crate) async fn open_of(
    tenant: Tenant,
    pipeline: &str,
    plugins: &[PluginConfig],
    schema: SchemaRef,
    pauses: LanePauses,
) -> Result<Chain, PipelineError> {
    LazyLock::force(&METERS);
    let metrics = Metrics::new(pipeline, "test", "test", "test");
    let load = |config: &PluginConfig| ENGINE.load_counted(&Arc::new(config.clone()), &tenant, &metrics).map(Arc::new);
    let plugins = plugins.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let context = ChainContext { pipeline: pipeline.into(), tenant, lane: 0, metrics, pauses };
    Chain::open(&plugins, schema, context).await
}

/// Everything that is measured in this process.
static METERS: LazyLock<prometheus::Registry> = LazyLock::new(|| {
    let registry = prometheus::Registry::new();
    let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
    let meters = opentelemetry_sdk::metrics::SdkMeterProvider::builder().with_reader(exporter).build();
    opentelemetry::global::set_meter_provider(meters);
    registry
});

/// The value of a metric of a pipeline under one more label; `None` where it was never told.
pub(crate) fn metric(name: &str, pipeline: &str, label: (&str, &str)) -> Option<u64> {
    let families = METERS.gather();
    let family = families.iter().find(|family| family.name() == name)?;
    let has = |metric: &prometheus::proto::Metric, (name, value): (&str, &str)| {
        metric.get_label().iter().any(|label| label.name() == name && label.value() == value)
    };
    let metric = family.get_metric().iter().find(|metric| has(metric, ("pipeline", pipeline)) && has(metric, label))?;
    // All of them are whole numbers.
    format!("{:.0}", metric.get_counter().get_value() + metric.get_gauge().get_value()).parse().ok()
}

/// How often a limit was hit in a pipeline.
pub(crate) fn limit_hits(pipeline: &str, limit: &str) -> u64 {
    metric("fs_data_sink_plugin_limit_hits_total", pipeline, ("limit", limit)).unwrap_or(0)
}

/// What becomes of one batch.
pub(crate) async fn run(plugin: PluginConfig) -> Result<ChainOutput, PipelineError> {
    open(&[plugin]).await?.process(batch()).await
}

/// What becomes of one batch under a crime.
pub(crate) async fn commit(crime: Value) -> ChainOutput {
    run(hostile(&crime)).await.unwrap()
}

/// The same by a plugin of a tenant.
pub(crate) async fn commit_of(tenant: Tenant, pipeline: &str, crime: Value) -> ChainOutput {
    let chain = open_of(tenant, pipeline, &[hostile(&crime)], schema(), LanePauses::detached()).await;
    chain.unwrap().process(batch()).await.unwrap()
}

/// The one rejection of a batch that was refused as a whole.
pub(crate) fn whole_batch(output: &ChainOutput) -> &Rejection {
    assert!(output.batches.is_empty(), "{:?}", output.batches);
    let [(_, rejection)] = output.rejected.as_slice() else {
        panic!("one rejection, not {:?}", output.rejected);
    };
    assert_eq!(rejection.rows, (0..10).collect::<Vec<_>>());
    assert_eq!(rejection.plugin.as_deref(), Some("hostile"));
    rejection
}

/// Refused as a whole, with this code and these words.
pub(crate) fn assert_refused(output: &ChainOutput, code: &str, words: &str) {
    let rejection = whole_batch(output);
    assert_eq!(rejection.code, code, "{}", rejection.message);
    assert!(rejection.message.contains(words), "{}", rejection.message);
}

/// The rows that went on, in one batch.
pub(crate) fn rows(output: &ChainOutput) -> &RecordBatch {
    assert!(output.rejected.is_empty(), "{:?}", output.rejected);
    let [batch] = output.batches.as_slice() else {
        panic!("one batch, not {:?}", output.batches);
    };
    &batch.rows
}

/// The numbers of the column `n`.
pub(crate) fn numbers(rows: &RecordBatch) -> Vec<i64> {
    let column = rows.column_by_name("n").unwrap();
    column.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
}

/// An IPC stream as hexadecimal digits.
pub(crate) fn stream(rows: &RecordBatch) -> String {
    hex(&stream_bytes(rows))
}

/// An IPC stream.
pub(crate) fn stream_bytes(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
    writer.write(rows).unwrap();
    writer.into_inner().unwrap()
}

/// The IPC stream of a schema as hexadecimal digits.
pub(crate) fn schema_stream(schema: &Schema) -> String {
    hex(&StreamWriter::try_new(Vec::new(), schema).unwrap().into_inner().unwrap())
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

impl Heard {
    /// A refusal was logged, with plugin, pipeline and tenant.
    pub(crate) fn expect(&self, grant: &str, reason: &str) {
        let lines = self.lines();
        let wanted = [
            format!("grant=\"{grant}\""),
            format!("reason=\"{reason}\""),
            "plugin=\"hostile\"".to_owned(),
            "pipeline=\"test\"".to_owned(),
            "tenant=\"test\"".to_owned(),
            "the plugin was refused".to_owned(),
        ];
        let is_told = lines.iter().any(|line| wanted.iter().all(|part| line.contains(part)));
        assert!(is_told, "{grant} {reason}: {lines:#?}");
    }
}
