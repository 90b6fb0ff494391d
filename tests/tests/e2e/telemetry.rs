//! What an operator sees.

use fs_data_sink_tests::{
    http,
    program::{Configuration, PARTITION_BY, end, kafka_source, local_sink},
    services::{free_port, process::Signal},
    wait::{self, Look},
};

use crate::shared::{SHORT, filled_topic, kafka, scenario, unique};

/// Scenario: a pipeline runs with its page switched on; records are read, refused and filtered.
/// Guarantees: `/healthz` and `/readyz` say 200, and `/metrics` has the original's three names and counts what happened.
#[test]
fn the_page_says_what_happened() -> anyhow::Result<()> {
    scenario("telemetry", |workspace| {
        let (kafka, count) = (kafka()?, 5_000);
        let records = filled_topic(kafka, "measured", 9, count)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
        let sink = local_sink(&workspace.path().join("lake")) + PARTITION_BY;
        let mut configuration = Configuration::new("measured", source, sink).with_records_schema_and_plugins();
        configuration.telemetry = format!("  log_format: json\n  listen: \"{address}\"\n");
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        let page = wait::until("all records on the page", SHORT, || {
            process.ensure_running()?;
            let Ok((200, page)) = http::get(&address, "/metrics") else {
                return Ok(Look::NotYet("no page".to_owned()));
            };
            let read = http::metric(&page, "fs_data_sink_records_processed_total");
            let files = http::metric(&page, "fs_data_sink_files_published_total");
            let done = read == Some(5_000.0) && files > Some(0.0);
            Ok(if done { Look::Done(page) } else { Look::NotYet(format!("{read:?} records, {files:?} files")) })
        })?;
        anyhow::ensure!(http::metric(&page, "fs_data_sink_batches_processed_total") > Some(0.0), "{page}");
        // Refused records are counted as errors too or apart; both names are there from the start.
        anyhow::ensure!(page.contains("fs_data_sink_errors"), "the third of the original's names is missing:\n{page}");
        anyhow::ensure!(http::metric(&page, "fs_data_sink_rejected_records_total") == Some(10.0), "{page}");
        anyhow::ensure!(http::metric(&page, "fs_data_sink_filtered_records_total") > Some(500.0), "{page}");
        for path in ["/healthz", "/readyz"] {
            let (status, body) = http::get(&address, path)?;
            anyhow::ensure!(status == 200, "{path}: {status} {body}");
        }
        let finished = end(process, Signal::Terminate, SHORT)?;
        finished.expect(0, &[])?;
        for line in finished.output.lines().filter(|line| !line.trim().is_empty()) {
            anyhow::ensure!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "a log line is not JSON: {line}");
        }
        Ok(())
    })
}
