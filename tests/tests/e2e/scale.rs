//! Many tenants in one process: what a pipeline costs that has nothing to do, and that those who have lose and double nothing beside them.

use std::time::Duration;

use anyhow::ensure;
use fs_data_sink_tests::{
    http,
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, end, local_sink, plugin, s3_sink},
    services::{
        free_port,
        kafka::NewRecord,
        process::{Process, Signal},
        redis::add_entries,
    },
    usage::Usage,
    wait::{self, Look},
};
use serde_json::json;

use crate::{
    redis::redis,
    shared::{LONG, kafka, s3, say, scenario, unique},
};

/// What a pipeline that has nothing to do may cost.
const IDLE_BYTES_MAX: u64 = 3 << 19;

/// What all of them together may take of a processor: so much that only a loop that never sleeps is above it on a busy machine. What is
/// measured is told.
const IDLE_CPU_MAX: f64 = 0.25;

/// Idle pipelines of the process that is compared with.
const FEW: usize = 6;

/// How long a start of hundreds of pipelines may take.
const START: Duration = Duration::from_mins(3);

/// Crimes of hostile plugins. None of them lets go by itself.
const CRIMES: [&str; 6] =
    ["loop-in-process", "trap", "allocate-for-ever", "fill-memory-for-ever", "sleep-in-process", "read-for-ever"];

/// How many of each.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Tenants.
    tenants: usize,
    /// Pipelines that have nothing to do.
    idle: usize,
    /// Pipelines with a hostile plugin.
    hostile: usize,
    /// Pipelines that have work.
    healthy: usize,
    /// Records of each of these.
    records: u64,
    /// How long nothing is done.
    rest: Duration,
}

/// Where the records come from, in each kind of source.
struct Sources {
    /// A topic, and a stream, of one record for all idle pipelines.
    idle: String,
    /// What the names of topics, streams and files of healthy pipelines begin with.
    healthy: String,
}

/// Record `number` of a pipeline, as JSON and as it is read back. Every fourth is left out by a plugin.
fn row(pipeline: usize, number: u64) -> String {
    let kind = if number % 4 == 3 { "drop" } else { "keep" };
    json!({"id": number, "kind": kind, "pipeline": pipeline}).to_string()
}

/// A pipeline of a tenant, with an address for nobody.
fn pipeline(name: &str, tenant: &str, source: String, sink: String) -> Configuration {
    let mut configuration = Configuration::new(&format!("{name}\ntenant: {tenant}"), source, sink);
    configuration.schema = String::from(
        "schema:\n  mode: declared\n  fields: [{name: id, type: int64}, {name: kind, type: string}, {name: pipeline, type: int64}]\n",
    );
    configuration.pipeline += "  lanes: 1\n  shutdown_timeout: 60s\n";
    configuration.telemetry.clear();
    configuration
}

/// The plugins of a healthy pipeline, or of a hostile one.
fn plugins(name: &str, config: &str) -> String {
    format!("plugins:\n  - name: p\n    path: {}\n    config: {config}\n", plugin(name).display())
}

/// `source` for a topic, with the time outs that a cluster has by itself.
fn of_topic(topic: &str, group: &str, more: &str) -> anyhow::Result<String> {
    let servers = kafka()?.bootstrap();
    Ok(format!(
        "  type: kafka\n  bootstrap_servers: [\"{servers}\"]\n  topics: [{topic}]\n  group_id: {group}\n  batch_size: 200\n{more}"
    ))
}

/// `source` for a stream, likewise.
fn of_stream(stream: &str) -> anyhow::Result<String> {
    let source =
        redis()?.source().replace("  session_timeout: 1500ms\n", "").replace("batch_size: 2000", "batch_size: 200");
    Ok(format!("{source}  stream_keys: [{stream}]\n"))
}

/// Writes a folder of configurations with an HTTP page.
fn write(workspace: &Workspace, folder: &str, tenants: usize, pipelines: &[Configuration]) -> anyhow::Result<String> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let budget = "{memory: 128MiB, open_files: 16, plugin_instances: 8}";
    let tenants: Vec<_> = (0..tenants).map(|number| format!("  t{number}: {budget}\n")).collect();
    let all = format!("tenants:\n{}telemetry: {{log_format: text, listen: \"{address}\"}}\n", tenants.concat());
    workspace.write(&format!("{folder}/all.yaml"), all)?;
    for configuration in pipelines {
        let name = configuration.name.lines().next().unwrap_or_default();
        workspace.write(&format!("{folder}/{name}.yaml"), configuration.yaml().replace("telemetry:\n", ""))?;
    }
    Ok(address)
}

/// Pipelines that read one record and then have nothing to do: half of Kafka and half of Redis, each half of a local disk and of S3.
fn idle(
    workspace: &Workspace,
    run: &str,
    sources: &Sources,
    scale: Scale,
    count: usize,
) -> anyhow::Result<Vec<Configuration>> {
    let one = |number: usize| {
        let name = format!("idle-{run}-{number}");
        let source =
            if number.is_multiple_of(2) { of_topic(&sources.idle, &name, "")? } else { of_stream(&sources.idle)? };
        let sink = if number % 4 < 2 {
            local_sink(&workspace.path().join("idle").join(&name))
        } else {
            s3_sink(s3()?.access(), &format!("{}/{name}", sources.idle))
        };
        Ok(pipeline(&name, &format!("t{}", number % scale.tenants), source, sink))
    };
    (0..count).map(one).collect()
}

/// Pipelines that have work: a third of Kafka, of Redis, and of files each.
fn healthy(workspace: &Workspace, sources: &Sources, scale: Scale) -> anyhow::Result<Vec<Configuration>> {
    let one = |number: usize| {
        let name = format!("{}-{number}", sources.healthy);
        let source = match number % 3 {
            // A member that was killed is missed after some seconds.
            0 => of_topic(&name, &name, "  extra_config: {session.timeout.ms: 6000}\n")?,
            1 => of_stream(&name)? + "  session_timeout: 6s\n",
            _ => format!("  type: file\n  paths: [../{name}.ndjson]\n  batch_size: 200\n"),
        };
        let tenant = scale.hostile + number % (scale.tenants - scale.hostile);
        let sink = local_sink(&workspace.path().join("lake").join(number.to_string()));
        let mut configuration = pipeline(&name, &format!("t{tenant}"), source, sink);
        configuration.plugins = plugins("keep_values", "{column: kind, values: [keep]}");
        Ok(configuration)
    };
    (0..scale.healthy).map(one).collect()
}

/// Pipelines with hostile plugins, each of a tenant that has no healthy one.
fn hostile(workspace: &Workspace, scale: Scale) -> anyhow::Result<Vec<Configuration>> {
    let rows: String = (0..scale.records).map(|number| row(0, number) + "\n").collect();
    workspace.write("hostile.ndjson", rows)?;
    let one = |number: usize| {
        let name = format!("hostile-{number}");
        let source = "  type: file\n  paths: [../hostile.ndjson]\n  batch_size: 50\n".to_owned();
        let mut configuration =
            pipeline(&name, &format!("t{number}"), source, local_sink(&workspace.path().join("hostile").join(&name)));
        let crime = CRIMES.get(number % CRIMES.len()).copied().unwrap_or_default();
        configuration.plugins =
            plugins("hostile", &format!("{{crime: {crime}}}")) + "    limits: {call_timeout: 300ms, memory: 32MiB}\n";
        configuration
    };
    Ok((0..scale.hostile).map(one).collect())
}

/// Fills topics, streams and files.
fn fill(workspace: &Workspace, sources: &Sources, scale: Scale) -> anyhow::Result<()> {
    let (kafka, mut link) = (kafka()?, redis()?.connection()?);
    let record = |row: String| NewRecord { value: Some(row.into_bytes()), ..NewRecord::default() };
    kafka.create_topic(&sources.idle, 1)?;
    kafka.produce(&sources.idle, [record(row(0, 0))])?;
    add_entries(&mut link, std::iter::once((sources.idle.clone(), vec![("value", row(0, 0))])))?;
    for number in 0..scale.healthy {
        let (name, rows) = (format!("{}-{number}", sources.healthy), (0..scale.records).map(|id| row(number, id)));
        match number % 3 {
            0 => {
                kafka.create_topic(&name, 1)?;
                kafka.produce(&name, rows.map(record))?;
            }
            1 => add_entries(&mut link, rows.map(|row| (name.clone(), vec![("value", row)])))?,
            _ => {
                workspace.write(&format!("{name}.ndjson"), rows.map(|row| row + "\n").collect::<String>())?;
            }
        }
    }
    Ok(())
}

/// Starts a process of idle pipelines alone, waits until each has written its record, and looks at it while nothing happens: what
/// it holds, and its share of a processor.
fn rest(
    workspace: &Workspace,
    run: &str,
    sources: &Sources,
    scale: Scale,
    count: usize,
) -> anyhow::Result<(Usage, f64)> {
    let pipelines = idle(workspace, run, sources, scale, count)?;
    let address = write(workspace, run, scale.tenants, &pipelines)?;
    let mut process = workspace.start(&["run", run])?;
    wait_for_metric(&mut process, &address, "fs_data_sink_files_published_total", count as u64)?;
    // Groups settle, and the allocator gives back what the start took.
    std::thread::sleep(scale.rest / 2);
    let before = Usage::of(process.id())?;
    std::thread::sleep(scale.rest);
    let after = Usage::of(process.id())?;
    process.ensure_running()?;
    end(process, Signal::Terminate, LONG)?.expect(0, &[])?;
    Ok((after, after.cpu.saturating_sub(before.cpu).as_secs_f64() / scale.rest.as_secs_f64()))
}

/// Waits until a metric, over all pipelines, is so large.
fn wait_for_metric(process: &mut Process, address: &str, name: &str, least: u64) -> anyhow::Result<()> {
    wait::until(&format!("{name} to be {least}"), START, || {
        process.ensure_running()?;
        std::thread::sleep(Duration::from_millis(500));
        let page = http::get(address, "/metrics").map(|(_, page)| page).unwrap_or_default();
        let value = http::metric(&page, name).unwrap_or_default();
        Ok(Look::when(value >= f64::from(u32::try_from(least)?), format!("it is {value}")))
    })
}

/// What an idle pipeline costs, as the difference between a process of many and one of few.
fn idle_ones_cost_little(workspace: &Workspace, sources: &Sources, scale: Scale) -> anyhow::Result<()> {
    let (few, _) = rest(workspace, "few", sources, scale, FEW)?;
    let (many, cpu) = rest(workspace, "many", sources, scale, FEW + scale.idle)?;
    let of_each = |of: fn(Usage) -> u64| of(many).saturating_sub(of(few)) / scale.idle as u64;
    let (bytes, threads) = (of_each(|usage| usage.memory_bytes), of_each(|usage| usage.threads));
    say(&format!(
        "{} idle pipelines: {} KiB and {threads} threads each ({} KiB in all, {} KiB with {FEW}); all take {:.2} % of a processor",
        scale.idle,
        bytes >> 10,
        many.memory_bytes >> 10,
        few.memory_bytes >> 10,
        cpu * 100.0,
    ));
    ensure!(bytes < IDLE_BYTES_MAX, "{bytes} bytes for each idle pipeline");
    ensure!(cpu < IDLE_CPU_MAX, "{cpu} of a processor with nothing to do");
    Ok(())
}

/// The rows that should be there.
fn expected(scale: Scale) -> Expected {
    let ids = move |pipeline| (0..scale.records).filter(|id| id % 4 != 3).map(move |id| row(pipeline, id));
    Expected::new(Box::new(move || Box::new((0..scale.healthy).flat_map(ids))))
}

/// All of them in one process, which is killed in the middle and begins anew.
fn healthy_ones_are_exact(workspace: &Workspace, sources: &Sources, scale: Scale) -> anyhow::Result<()> {
    let mut pipelines = hostile(workspace, scale)?;
    pipelines.extend(idle(workspace, "mixed", sources, scale, scale.idle)?);
    pipelines.extend(healthy(workspace, sources, scale)?);
    let address = write(workspace, "mixed", scale.tenants, &pipelines)?;
    let all = scale.records * scale.healthy as u64;

    let mut process = workspace.start(&["run", "mixed"])?;
    wait_for_metric(&mut process, &address, "fs_data_sink_records_processed_total", all / 3)?;
    process.kill()?;
    let mut process = workspace.start(&["run", "mixed"])?;
    let (lake, expected) = (workspace.path().join("lake"), expected(scale));
    wait::until("every row of the healthy ones", LONG * 2, || {
        process.ensure_running()?;
        std::thread::sleep(Duration::from_secs(3));
        let found = Lake::Local(&lake).read(Reader::DuckDb, &[], workspace.path())?.compare(&expected)?;
        Ok(Look::when(found.missing == 0, format!("{found:?}")))
    })?;
    // Most crimes take some time to be seen as such.
    let (waiting, page) = wait::until("a hostile plugin to be told of", LONG, || {
        process.ensure_running()?;
        let (_, page) = http::get(&address, "/healthz")?;
        let is_told = |line: &&str| line.starts_with("hostile-") && line.contains(": waiting: ");
        let waiting = page.lines().filter(is_told).count();
        Ok(if waiting > 0 { Look::Done((waiting, page)) } else { Look::NotYet(page) })
    })?;
    say(&format!("{waiting} of {} hostile plugins are waited for; {:?}", scale.hostile, Usage::of(process.id())?));
    let others = page.lines().filter(|line| !line.starts_with("hostile-"));
    let failed: Vec<_> = others.filter(|line| line.contains(": failed: ") || line.contains(": waiting: ")).collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    end(process, Signal::Terminate, LONG)?;
    Lake::Local(&lake).read(Reader::DuckDb, &[], workspace.path())?.compare(&expected)?.expect_exact()
}

/// Both.
fn run(name: &str, scale: Scale) -> anyhow::Result<()> {
    scenario(name, |workspace| {
        let sources = Sources { idle: unique("idle"), healthy: unique("healthy") };
        fill(workspace, &sources, scale)?;
        idle_ones_cost_little(workspace, &sources, scale)?;
        healthy_ones_are_exact(workspace, &sources, scale)
    })
}

/// Scenario: two processes of 6 and of 26 pipelines rest after a record each, half of Kafka and half of Redis; then ten tenants
/// run 30 pipelines: 15 that have nothing to do, 3 with hostile plugins, and 12 with work of Kafka, Redis and files. The process is
/// killed in the middle and begins anew.
/// Guarantees: an idle pipeline costs less than 1.5 MiB and next to no time; each row of the healthy ones is there once, and none
/// of them has failed or waits; the hostile ones are told of.
#[test]
fn ten_tenants_side_by_side() -> anyhow::Result<()> {
    let rest = Duration::from_secs(8);
    run("scale", Scale { tenants: 10, idle: 15, hostile: 3, healthy: 12, records: 1_000, rest })
}

/// Scenario: the same with a hundred tenants and 300 pipelines: 150 idle, 10 hostile, 140 healthy.
/// Guarantees: the same.
#[test]
#[ignore = "300 pipelines: `make soak`"]
fn a_hundred_tenants_side_by_side() -> anyhow::Result<()> {
    let rest = Duration::from_mins(1);
    run("scale-full", Scale { tenants: 100, idle: 150, hostile: 10, healthy: 140, records: 2_000, rest })
}
