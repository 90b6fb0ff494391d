//! Tenants side by side in one process: what is wrong with one is no matter of the others, and each has its own budget.

use std::{path::Path, time::Instant};

use anyhow::ensure;
use fs_data_sink_tests::{
    http,
    lake::{Lake, Reader},
    program::{Configuration, Workspace, end, kafka_source, local_sink, plugin, s3_sink},
    services::{free_port, process::Signal, s3::S3Access},
    wait::{self, Look},
};
use serde_json::json;

use crate::{
    reload::yaml,
    shared::{LONG, SHORT, scenario},
};

/// Records of each pipeline.
const RECORDS: u64 = 5_000;

/// A pipeline over the file for a tenant.
fn pipeline(tenant: &str, name: &str, sink: String) -> Configuration {
    let source = "  type: file\n  paths: [../in.ndjson]\n  batch_size: 100\n".to_owned();
    let mut configuration = Configuration::new(&format!("{name}\ntenant: {tenant}"), source, sink);
    configuration.schema =
        "schema:\n  mode: declared\n  fields: [{name: id, type: int64}, {name: text, type: string}]\n".into();
    configuration.pipeline = "  commit_interval: 1s\n  lanes: 1\n  shutdown_timeout: 5s\n".into();
    configuration.telemetry.clear();
    configuration
}

/// The records.
fn records() -> String {
    (0..RECORDS).map(|number| json!({"id": number, "text": "x".repeat(100)}).to_string() + "\n").collect()
}

/// An S3 server that nobody is.
fn nowhere() -> anyhow::Result<S3Access> {
    Ok(S3Access {
        endpoint: format!("http://127.0.0.1:{}", free_port()?),
        bucket: "lake".into(),
        region: "us-east-1".into(),
        key_id: "k".into(),
        secret: "s".into(),
    })
}

/// The folder of the scenario below.
fn write_tenants(workspace: &Workspace, address: &str) -> anyhow::Result<()> {
    let folder = |name: &str| workspace.path().join(name);
    let local = |name: &str| local_sink(&folder(name));
    let with_plugin = |tenant: &str, path: &Path, more: &str| {
        let mut configuration = pipeline(tenant, tenant, local(tenant));
        configuration.plugins = format!("plugins:\n  - name: p\n    path: {}\n{more}", path.display());
        yaml(&configuration)
    };
    let mut away = pipeline("broker", "broker", local("broker"));
    away.source = kafka_source(&format!("127.0.0.1:{}", free_port()?), "nothing", "group");
    let mut bucket = pipeline("bucket", "bucket", s3_sink(&nowhere()?, "x"));
    bucket.sink += "  retry_timeout: 3s\n";
    let looping = "    config: {crime: loop-in-process}\n    limits: {call_timeout: 300ms}\n";
    let hostile = plugin("hostile");
    let files = [
        ("fault", yaml(&pipeline("fault", "fault", local("fault"))) + "\ncolour: red\n"),
        ("text", "source: {type: file\n".to_owned()),
        ("garbage", with_plugin("garbage", &folder("garbage.wasm"), "")),
        ("stranger", with_plugin("stranger", &hostile, looping)),
        ("broker", yaml(&away)),
        ("bucket", yaml(&bucket)),
        ("looping", with_plugin("looping", &hostile, looping)),
        ("well", yaml(&pipeline("well", "well", local("well")))),
    ];
    for (name, text) in files {
        workspace.write(&format!("conf/{name}.yaml"), text)?;
    }
    workspace.write(
        "conf/all.yaml",
        format!(
            "tenants:
  well: {{bytes_per_second: 150kB, memory: 64MiB, open_files: 2, plugin_instances: 4}}
  stranger: {{untrusted: true}}
  looping: {{}}
  fault: {{}}
  garbage: {{}}
  broker: {{}}
  bucket: {{}}
telemetry: {{log_format: text, listen: \"{address}\"}}
"
        ),
    )?;
    Ok(())
}

/// Scenario: a folder with seven tenants: a file with a fault, a file that is no YAML, a plugin that is none, an untrusted one
/// without a digest, a broker that is away, a bucket that is away, a plugin that loops for ever; and one that is well and may read
/// 150 kB a second. SIGTERM ends it.
/// Guarantees: `validate` tells all that can be seen ahead and exits with 2; the well one has each of its rows once, in its own time,
/// and its metrics; each other is told in words on the page or in the log; the process exits with 2 or 1, not with 0.
#[test]
fn what_is_wrong_with_a_tenant_stops_its_own_pipelines_alone() -> anyhow::Result<()> {
    scenario("tenants", |workspace| {
        let address = format!("127.0.0.1:{}", free_port()?);
        let records = records();
        workspace.write("in.ndjson", &records)?;
        workspace.write("garbage.wasm", b"\0asm\x0d\0\x01\0garbage")?;
        write_tenants(workspace, &address)?;
        let checked = workspace.run(&["validate", "conf"], SHORT)?;
        checked.expect(2, &["conf/fault.yaml:", "colour: unknown key", "conf/text.yaml", "stranger is `untrusted`"])?;

        let began = Instant::now();
        let mut process = workspace.start(&["run", "conf"])?;
        let page = wait::until("the well one to be done, and the others to be where they get", LONG, || {
            process.ensure_running()?;
            let page = http::get(&address, "/healthz").map(|(_, page)| page).unwrap_or_default();
            let is_right = page.contains("well: stopped")
                && page.contains("garbage: failed: ")
                && page.contains("bucket: failed: ")
                && page.contains("looping: waiting: ")
                && page.contains("broker: running");
            Ok(if is_right { Look::Done(page) } else { Look::NotYet(page) })
        })?;
        // What is read in the first second was earned before.
        let least = f64::from(u32::try_from(records.len())?) / 150e3 - 1.5;
        ensure!(began.elapsed().as_secs_f64() >= least, "{:?} is faster than it may be", began.elapsed());
        for words in ["# refused: conf/fault.yaml:", "# refused: conf/text.yaml", "# refused: conf/stranger.yaml:"] {
            ensure!(page.contains(words), "{words} is missing:\n{page}");
        }
        let well = Lake::Local(&workspace.path().join("well")).read(Reader::PyArrow, &[], workspace.path())?;
        ensure!(well.distinct_rows()? as u64 == RECORDS, "rows are missing");
        let (_, metrics) = http::get(&address, "/metrics")?;
        let of_well = |name: &str| {
            let line =
                metrics.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains("tenant=\"well\""));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        };
        ensure!(of_well("fs_data_sink_tenant_source_bytes_total") >= Some(500e3), "{metrics}");
        ensure!(of_well("fs_data_sink_tenant_memory_bytes_limit") == Some(f64::from(64 << 20)), "{metrics}");
        ensure!(http::metric(&metrics, "fs_data_sink_configuration_wrong_files") == Some(3.0), "{metrics}");
        let ended = end(process, Signal::Terminate, SHORT)?;
        ended.expect(1, &["garbage: plugin p:"])
    })
}
