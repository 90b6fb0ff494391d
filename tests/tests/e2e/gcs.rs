//! Google Cloud Storage, as far as a translator in front of the S3 server is one.

use std::sync::LazyLock;

use fs_data_sink::store::conformance::conform;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, kafka_source},
    services::{gcs::Gcs, hdfs::store, runtime},
};

use crate::shared::{LONG, SHORT, filled_topic, kafka, run_after_ends_at, s3, scenario, unique};

/// Enough for several commits in a run.
const RECORDS: u64 = 20_000;

/// The translator of all scenarios.
fn gcs() -> anyhow::Result<&'static Gcs> {
    static SHARED: LazyLock<anyhow::Result<Gcs>> = LazyLock::new(|| Gcs::start(s3()?));
    SHARED.as_ref().map_err(|error| anyhow::anyhow!("no GCS: {error:#}"))
}

/// `sink` for a bucket.
fn sink(bucket: &str, prefix: &str) -> anyhow::Result<String> {
    let endpoint = gcs()?.endpoint_url();
    Ok(format!("  type: gcs\n  bucket: {bucket}\n  prefix: {prefix}\n  endpoint_url: {endpoint}\n  anonymous: true\n"))
}

/// Scenario: the suite of the stores through the GCS client.
/// Guarantees: what the product builds on holds for the requests that it makes of GCS.
#[test]
fn gcs_keeps_the_contract_of_stores() -> anyhow::Result<()> {
    scenario("gcs-suite", |_| {
        let store = store(gcs()?.sink(&unique("suite")))?;
        runtime()?.block_on(async { tokio::time::timeout(LONG, conform(&store)).await })?
    })
}

/// Scenario: a pipeline from Kafka to GCS ends between the steps of its commits, and is started again each time.
/// Guarantees: every row is there exactly once, as another client reads it from the server behind, and the ledger agrees.
#[test]
fn records_arrive_on_gcs_exactly_once() -> anyhow::Result<()> {
    scenario("gcs-once", |workspace| {
        let (kafka, prefix) = (kafka()?, unique("gcs"));
        let records = filled_topic(kafka, "gcs", 19, RECORDS)?;
        let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
        let sink = sink(&s3()?.access().bucket, &prefix)? + PARTITION_BY;
        let mut configuration = Configuration::new("gcs", source, sink).with_records_schema_and_plugins();
        configuration.pipeline = "  commit_interval: 500ms\n  flush_interval_batches: 3\n".to_owned();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        run_after_ends_at(workspace, &["staged:1", "recorded:1", "published_one:3"])?;
        let seen = Lake::S3(s3()?, &prefix).read(Reader::PyArrow, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, RECORDS))?.expect_exact()?;
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])
    })
}

/// Scenario: a service account's file that is none.
/// Guarantees: the key to look at is named.
#[test]
fn gcs_with_a_wrong_key_file_is_told() -> anyhow::Result<()> {
    scenario("gcs-wrong", |workspace| {
        workspace.write("key.json", "{\"private_key\": \"no key\"}")?;
        let sink = sink("lake", "x")?.replace("anonymous: true", "service_account_file: key.json");
        let source = "  type: file\n  paths: [pipeline.yaml]\n".to_owned();
        workspace.write("pipeline.yaml", Configuration::new("wrong", source, sink).yaml())?;
        workspace
            .run(&["validate", "--connect", "pipeline.yaml"], SHORT)?
            .expect(1, &["gs://", "sink.service_account_file"])
    })
}
