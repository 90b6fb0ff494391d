//! Azure Blob Storage, where Azurite is there.

use std::sync::LazyLock;

use anyhow::ensure;
use fs_data_sink::store::conformance::conform;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, Workspace, kafka_source},
    services::{
        azure::{ACCOUNT, Azure, CONTAINER, KEY},
        hdfs::store,
        runtime,
    },
};

use crate::shared::{LONG, SHORT, filled_topic, kafka, run_after_ends_at, say, scenario, unique};

/// Enough for several commits in a run.
const RECORDS: u64 = 20_000;

/// Runs a scenario with the server of all of them; says so where there is none.
fn with_azure(name: &str, body: impl FnOnce(&Azure, &mut Workspace) -> anyhow::Result<()>) -> anyhow::Result<()> {
    static SHARED: LazyLock<anyhow::Result<Azure>> = LazyLock::new(Azure::start);
    if !Azure::is_there() {
        say(&format!("{name}: not run, since Azurite is not there (it needs node and npm, then tests/setup.sh)"));
        return Ok(());
    }
    let azure = SHARED.as_ref().map_err(|error| anyhow::anyhow!("no Azurite: {error:#}"))?;
    scenario(name, |workspace| body(azure, workspace))
        .map_err(|error| error.context(format!("Azurite's log: {}", azure.keep_log())))
}

/// `sink` for a container.
fn sink(azure: &Azure, container: &str, prefix: &str, credentials: &str) -> String {
    let endpoint = azure.endpoint_url();
    format!(
        "  type: azure\n  account: {ACCOUNT}\n  container: {container}\n  prefix: {prefix}\n  endpoint_url: {endpoint}\n  {credentials}\n"
    )
}

/// Scenario: the suite of the stores over Azurite.
/// Guarantees: what the product builds on holds for Azure's protocol.
#[test]
fn azure_keeps_the_contract_of_stores() -> anyhow::Result<()> {
    with_azure("azure-suite", |azure, _| {
        let store = store(azure.sink(&unique("suite")))?;
        runtime()?.block_on(async { tokio::time::timeout(LONG, conform(&store)).await })?
    })
}

/// Scenario: a pipeline from Kafka to Azure ends between the steps of its commits, and is started again each time.
/// Guarantees: every row is there exactly once, as a client that is not ours reads it, and the ledger agrees.
#[test]
fn records_arrive_on_azure_exactly_once() -> anyhow::Result<()> {
    with_azure("azure-once", |azure, workspace| {
        let (kafka, prefix) = (kafka()?, unique("azure"));
        let records = filled_topic(kafka, "azure", 18, RECORDS)?;
        let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
        let sink = sink(azure, CONTAINER, &prefix, &format!("access_key: {KEY}")) + PARTITION_BY;
        let mut configuration = Configuration::new("azure", source, sink).with_records_schema_and_plugins();
        configuration.pipeline = "  commit_interval: 500ms\n  flush_interval_batches: 3\n".to_owned();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        run_after_ends_at(workspace, &["staged:1", "recorded:1", "published_one:3"])?;
        let copy = workspace.path().join("copy");
        azure.download(&prefix, &copy)?;
        let seen = Lake::Local(&copy).read(Reader::PyArrow, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, RECORDS))?.expect_exact()?;
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])
    })
}

/// Scenario: another account's key, a signature of nobody, a container that is not there, nobody who listens.
/// Guarantees: the key to look at is named, and no secret is said.
#[test]
fn azure_that_cannot_be_used_is_told() -> anyhow::Result<()> {
    with_azure("azure-wrong", |azure, workspace| {
        let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let key = format!("access_key: {KEY}");
        let cases = [
            (sink(azure, CONTAINER, "x", &format!("access_key: {other}")), "sink.access_key"),
            (sink(azure, CONTAINER, "x", "sas_token: \"sv=2024-11-04&sig=AAAA\""), "sink.sas_token"),
            (sink(azure, "no-such-container", "x", &key), "sink.container"),
        ];
        for (sink, word) in cases {
            let source = "  type: file\n  paths: [pipeline.yaml]\n".to_owned();
            workspace.write("pipeline.yaml", Configuration::new("wrong", source, sink).yaml())?;
            let finished = workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?;
            finished.expect(1, &[word, "az://"])?;
            ensure!(!finished.output.contains(other) && !finished.output.contains("sig="), "{}", finished.output);
        }
        Ok(())
    })
}
