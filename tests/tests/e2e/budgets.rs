//! Budgets of tenants that bite: what plugins send away, and files that are open.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    http,
    lake::{Lake, Reader},
    program::{Configuration, Workspace, end, local_sink, plugin},
    services::{
        free_port,
        misbehaving::{Manner, Server},
        process::{Process, Signal},
    },
    wait::{self, Look},
};
use serde_json::{Value, json};

use crate::{
    reload::yaml,
    shared::{LONG, SHORT, scenario},
};

/// Bytes a second that the poor tenant may send.
const EGRESS: u32 = 2_000;
/// Requests of each tenant.
const REQUESTS: usize = 30;
/// Files that the bounded tenant may have open.
const OPEN_FILES: f64 = 3.0;
/// Its pipelines, with one lane each, which may always have one more.
const PIPELINES: f64 = 2.0;
/// Directories of each pipeline.
const DIRECTORIES: u64 = 12;
/// Rows of each pipeline.
const ROWS: u64 = 48_000;

/// One value of a tenant on the page of metrics.
fn of_tenant(page: &str, name: &str, tenant: &str, more: &str) -> Option<f64> {
    let label = format!("tenant=\"{tenant}\"");
    let is_it = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(&label) && line.contains(more);
    page.lines().find(is_it).and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

/// A pipeline whose plugin sends requests of 1,000 bytes one after the other, and nobody else to write to.
fn sending(workspace: &Workspace, tenant: &str, port: u16) -> anyhow::Result<()> {
    let lake = workspace.path().join(tenant);
    let source = "  type: file\n  paths: [../in.ndjson]\n".to_owned();
    let mut configuration = Configuration::new(&format!("{tenant}\ntenant: {tenant}"), source, local_sink(&lake));
    configuration.schema = "schema:\n  mode: declared\n  fields: [{name: id, type: int64}]\n".into();
    configuration.telemetry.clear();
    let step = json!({"http": {
        "authority": format!("127.0.0.1:{port}"), "path": "/", "method": "POST", "body_bytes": 1_000, "times": REQUESTS,
    }});
    configuration.plugins = format!(
        "plugins:
  - name: sender
    path: {}
    config: {}
    limits: {{call_timeout: 60s}}
    grants:
      http: [{{host: 127.0.0.1, port: {port}, scheme: http, methods: [POST], allow_private: true, timeout: 10s}}]
      keyvalue: [{{bucket: none, redis: {{url: \"redis://127.0.0.1:1\"}}}}]
",
        plugin("hostile_lookup").display(),
        json!({"do": [step]})
    );
    workspace.write(&format!("conf/{tenant}.yaml"), yaml(&configuration))?;
    Ok(())
}

/// Waits until pipelines are stopped: the page of metrics then.
fn wait_for_ends(process: &mut Process, address: &str, names: &[&str]) -> anyhow::Result<String> {
    wait::until("the pipelines to end", LONG, || {
        process.ensure_running()?;
        let page = http::get(address, "/healthz").map(|(_, page)| page).unwrap_or_default();
        let is_over = names.iter().all(|name| page.contains(&format!("{name}: stopped")));
        let metrics = http::get(address, "/metrics").map(|(_, page)| page).unwrap_or_default();
        Ok(if is_over { Look::Done(metrics) } else { Look::NotYet(page) })
    })
    .with_context(|| process.log_tail())
}

/// Keeps the process alive when all others have ended: a pipeline that waits for its broker.
fn write_idle(workspace: &Workspace, tenants: &str, address: &str) -> anyhow::Result<()> {
    let source = fs_data_sink_tests::program::kafka_source(&format!("127.0.0.1:{}", free_port()?), "nothing", "group");
    let mut configuration =
        Configuration::new("idle\ntenant: idle", source, local_sink(&workspace.path().join("idle")));
    configuration.telemetry.clear();
    configuration.pipeline = "  shutdown_timeout: 5s\n".into();
    workspace.write("conf/idle.yaml", yaml(&configuration))?;
    let text = format!("tenants: {{idle: {{}}, {tenants}}}\ntelemetry: {{log_format: text, listen: \"{address}\"}}\n");
    workspace.write("conf/all.yaml", text)?;
    Ok(())
}

/// Scenario: two tenants whose plugins send 30 requests of 1,000 bytes at once; one of them may send 2 kB a second.
/// Guarantees: of that one no more leaves than it may, the rest is refused to its plugin, told and counted; all of the other arrives.
#[test]
fn what_a_tenant_sends_is_bounded_and_no_matter_of_another() -> anyhow::Result<()> {
    scenario("budget-egress", |workspace| {
        let address = format!("127.0.0.1:{}", free_port()?);
        let server = |port| Server::start((Ipv4Addr::LOCALHOST, port).into(), Manner::Says("ok".into()));
        let ports = [free_port()?, free_port()?];
        let [poor, rich] = [server(ports[0])?, server(ports[1])?];
        workspace.write("in.ndjson", "{\"id\": 1}\n")?;
        sending(workspace, "poor", ports[0])?;
        sending(workspace, "rich", ports[1])?;
        write_idle(workspace, &format!("poor: {{egress_bytes_per_second: {EGRESS}}}, rich: {{}}"), &address)?;
        let began = Instant::now();
        let mut process = workspace.start(&["run", "conf"])?;
        let metrics = wait_for_ends(&mut process, &address, &["poor", "rich"])?;
        let seconds = began.elapsed().as_secs_f64();
        let output = end(process, Signal::Terminate, SHORT)?.output;
        let told = |tenant: &str| -> anyhow::Result<String> {
            let lake = workspace.path().join(tenant);
            let letters = Lake::Local(&lake).dead_letters(tenant)?;
            let message = letters.first().and_then(|letter| letter.line.get("message")).and_then(Value::as_str);
            Ok(message.context("no dead letter")?.to_owned())
        };
        let ok = "200 2 bytes ok";
        ensure!(told("rich")? == ok && rich.connections() == REQUESTS, "{}: {}", rich.connections(), told("rich")?);
        ensure!(told("poor")?.starts_with(&format!("{ok}, HttpRequestDenied")), "{}", told("poor")?);
        let sent = of_tenant(&metrics, "fs_data_sink_tenant_egress_bytes_total", "poor", "").unwrap_or_default();
        // What is earned, a second of what was earned before, and the last one, which is sent whole.
        let most = f64::from(EGRESS) * (seconds + 1.0) + 1_500.0;
        ensure!(sent >= 1_000.0 && sent <= most, "{sent} bytes of {most} in {seconds} s");
        let arrived = poor.connections();
        let in_bodies = f64::from(u32::try_from(arrived)?) * 1_000.0;
        ensure!(arrived < REQUESTS && in_bodies <= sent, "{arrived} requests in {sent} bytes");
        let refusals = "fs_data_sink_plugin_refusals_total";
        ensure!(of_tenant(&metrics, refusals, "poor", "reason=\"tenant-egress\"") >= Some(1.0), "{metrics}");
        ensure!(of_tenant(&metrics, refusals, "rich", "").is_none(), "{metrics}");
        let hits = "fs_data_sink_tenant_limit_hits_total";
        ensure!(of_tenant(&metrics, hits, "poor", "limit=\"egress_bytes_per_second\"") >= Some(1.0), "{metrics}");
        let words = "its tenant has sent more than 2000 bytes a second (tenants.poor.egress_bytes_per_second)";
        let parts = [words, "tenant=\"poor\"", "plugin=\"sender\"", "pipeline=\"poor\"", "reason=\"tenant-egress\""];
        ensure!(output.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?}:\n{output}");
        Ok(())
    })
}

/// A pipeline into twelve directories, slow enough to be looked at.
fn spreading(workspace: &Workspace, tenant: &str, name: &str) -> anyhow::Result<()> {
    let sink = local_sink(&workspace.path().join(name)) + "  partition_by: [d]\n";
    let source = "  type: file\n  paths: [../in.ndjson]\n  batch_size: 4000\n".to_owned();
    let mut configuration = Configuration::new(&format!("{name}\ntenant: {tenant}"), source, sink);
    configuration.schema =
        "schema:\n  mode: declared\n  fields: [{name: id, type: int64}, {name: d, type: string}]\n".into();
    configuration.pipeline = "  commit_interval: 1h\n  lanes: 1\n".into();
    configuration.telemetry.clear();
    workspace.write(&format!("conf/{name}.yaml"), yaml(&configuration))?;
    Ok(())
}

/// Scenario: two pipelines of a tenant who may have three files open, and one of a tenant who may have any number; each writes
/// into twelve directories.
/// Guarantees: whenever one looks, the first tenant has no more open than it may, and one more for each lane; the other has more;
/// all rows of all three arrive.
#[test]
fn open_files_of_a_tenant_are_bounded_over_its_pipelines() -> anyhow::Result<()> {
    scenario("budget-files", |workspace| {
        let address = format!("127.0.0.1:{}", free_port()?);
        // Stretches of a directory that are worth a file, one after the other.
        let text: String = (0..ROWS)
            .map(|id| json!({"id": id, "d": format!("d{}", id / 1_500 % DIRECTORIES)}).to_string() + "\n")
            .collect();
        workspace.write("in.ndjson", text)?;
        let all = ["bounded1", "bounded2", "free"];
        spreading(workspace, "bounded", "bounded1")?;
        spreading(workspace, "bounded", "bounded2")?;
        spreading(workspace, "free", "free")?;
        let rate = "bytes_per_second: 300kB";
        write_idle(workspace, &format!("bounded: {{open_files: 3, {rate}}}, free: {{{rate}}}"), &address)?;
        let mut process = workspace.start(&["run", "conf"])?;
        let (mut most, mut most_free) = (0.0_f64, 0.0_f64);
        let metrics = wait::until("the pipelines to end", LONG, || {
            process.ensure_running()?;
            let page = http::get(&address, "/healthz").map(|(_, page)| page).unwrap_or_default();
            let metrics = http::get(&address, "/metrics").map(|(_, page)| page).unwrap_or_default();
            let open = |tenant| of_tenant(&metrics, "fs_data_sink_tenant_open_files", tenant, "").unwrap_or_default();
            most = most.max(open("bounded"));
            most_free = most_free.max(open("free"));
            let is_over = all.iter().all(|name| page.contains(&format!("{name}: stopped")));
            Ok(if is_over { Look::Done(metrics) } else { Look::NotYet(page) })
        })?;
        end(process, Signal::Terminate, SHORT)?;
        ensure!((1.0..=OPEN_FILES + PIPELINES).contains(&most), "{most} files were open");
        ensure!(most_free > OPEN_FILES + PIPELINES, "{most_free} files were open without a limit: this shows nothing");
        let hits = "fs_data_sink_tenant_limit_hits_total";
        ensure!(of_tenant(&metrics, hits, "bounded", "limit=\"open_files\"") >= Some(1.0), "{metrics}");
        ensure!(of_tenant(&metrics, hits, "free", "limit=\"open_files\"").is_none(), "{metrics}");
        for name in all {
            let lake = workspace.path().join(name);
            let rows = Lake::Local(&lake).read(Reader::PyArrow, &["d"], workspace.path())?.distinct_rows()?;
            ensure!(rows as u64 == ROWS, "{name} has {rows} rows");
        }
        Ok(())
    })
}
