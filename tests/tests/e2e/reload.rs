//! A configuration that changes while the process runs: pipelines come, go and are changed; what is wrong is refused.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    http,
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, Workspace, end, kafka_source, local_sink, plugin},
    records::{PARTITIONS, Records},
    services::{
        free_port,
        process::{Process, Signal},
    },
    wait::{self, Look},
};

use crate::shared::{Feed, LONG, SHORT, ensure_all_there, filled_topic, kafka, scenario, unique};

/// Records a second, all the time.
const RATE: u64 = 500;

/// A pipeline from a topic to a folder of its own.
fn pipeline(name: &str, topic: &str, group: &str, lake: &Path) -> anyhow::Result<Configuration> {
    let sink = local_sink(lake) + PARTITION_BY;
    let source = kafka_source(kafka()?.bootstrap(), topic, group);
    let mut configuration = Configuration::new(name, source, sink).with_records_schema_and_plugins();
    configuration.telemetry.clear();
    configuration.pipeline = "  commit_interval: 1s\n  lanes: 1\n".into();
    Ok(configuration)
}

/// YAML without an empty section.
pub(crate) fn yaml(configuration: &Configuration) -> String {
    configuration.yaml().replace("telemetry:\n", "")
}

/// Waits until the page of the pipelines is as wanted.
pub(crate) fn wait_for_page(
    process: &mut Process,
    address: &str,
    what: &str,
    is_right: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    wait::until(what, LONG, || {
        process.ensure_running()?;
        let page = http::get(address, "/healthz").map(|(_, page)| page).unwrap_or_default();
        Ok(Look::when(is_right(&page), page))
    })
    .with_context(|| process.log_tail())
}

/// Waits until three reloads are counted as applied.
fn wait_for_three_reloads(address: &str) -> anyhow::Result<()> {
    wait::until("three reloads", SHORT, || {
        let (_, page) = http::get(address, "/metrics")?;
        let mut lines = page.lines().filter(|line| line.starts_with("fs_data_sink_reloads_total"));
        Ok(Look::when(lines.any(|line| line.contains("applied") && line.ends_with(" 3")), page))
    })
}

/// The lines of a log that have some words.
pub(crate) fn lines_with(process: &Process, words: &str) -> usize {
    process.log().lines().filter(|line| line.contains(words)).count()
}

/// Every row once.
fn ensure_exact(lake: &Path, records: &Records, count: u64, workspace: &Workspace) -> anyhow::Result<()> {
    let seen = Lake::Local(lake).read(Reader::PyArrow, &["country", "level"], workspace.path())?;
    seen.compare(&Expected::of_records(records, count))?.expect_exact()
}

/// Scenario: a folder of two pipelines, of which one is fed all the time; that one's file gets a fault, is mended with a change, the
/// other file is removed and a third comes, each time with SIGHUP; at last it is changed once more, and SIGTERM follows at once.
/// Guarantees: the fault is refused with its line, and both go on; a change drains one pipeline and leaves the others alone; all
/// rows of all three are there once; SIGTERM in the middle ends well; the page and the metrics tell.
#[test]
fn pipelines_come_go_and_are_changed_and_faults_are_refused() -> anyhow::Result<()> {
    scenario("reload", |workspace| {
        let kafka = kafka()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let fed = Records { seed: 5, topic: unique("reload-fed") };
        kafka.create_topic(&fed.topic, PARTITIONS)?;
        let (gone, new) = (filled_topic(kafka, "reload-gone", 6, 2_000)?, filled_topic(kafka, "reload-new", 7, 2_000)?);
        let folder = |name: &str| workspace.path().join(name);
        let group = unique("group");
        let mut changing = pipeline("fed", &fed.topic, &group, &folder("fed"))?;
        let right = yaml(&changing);
        workspace.write("conf/fed.yaml", &right)?;
        workspace.write("conf/gone.yaml", yaml(&pipeline("gone", &gone.topic, &unique("group"), &folder("gone"))?))?;
        workspace.write(
            "conf/all.yaml",
            format!("tenants: {{default: {{memory: 1GiB}}}}\ntelemetry: {{log_format: text, listen: \"{address}\"}}\n"),
        )?;
        let feed = Feed::start(kafka, &fed, 0, RATE)?;
        let mut process = workspace.start(&["run", "conf"])?;
        wait_for_page(&mut process, &address, "both", |page| {
            page.contains("fed: running") && page.contains("gone: running")
        })?;

        workspace.write("conf/fed.yaml", format!("{right}\ncolour: red\n"))?;
        process.signal(Signal::Hangup)?;
        wait_for_page(&mut process, &address, "the refusal", |page| {
            page.contains("# refused: conf/fed.yaml:")
                && page.contains("colour: unknown key")
                && page.contains("fed: running")
                && page.contains("gone: running")
        })?;

        changing.pipeline = "  commit_interval: 2s\n  lanes: 1\n".to_owned();
        workspace.write("conf/fed.yaml", yaml(&changing))?;
        fs::remove_file(folder("conf/gone.yaml"))?;
        workspace.write("conf/new.yaml", yaml(&pipeline("new", &new.topic, &unique("group"), &folder("new"))?))?;
        ensure_gets_all(workspace, &folder("gone"), &gone, 2_000)?;
        process.signal(Signal::Hangup)?;
        wait_for_page(&mut process, &address, "one changed, one gone, one new", |page| {
            page.contains("new: running")
                && !page.contains("gone")
                && !page.contains("refused")
                && page.contains("fed: running")
        })?;
        ensure_gets_all(workspace, &folder("new"), &new, 2_000)?;
        // Nobody asked for anything.
        process.signal(Signal::Hangup)?;
        wait_for_three_reloads(&address)?;
        ensure!(lines_with(&process, "begins anew") == 1, "more was changed than one pipeline");

        let count = feed.finish()?;
        ensure_all_there(kafka, &fed, count)?;
        workspace.write("conf/fed.yaml", &right)?;
        process.signal(Signal::Hangup)?;
        end(process, Signal::Terminate, LONG)?.expect(0, &["asked to stop"])?;
        workspace.run(&["run", "conf", "--until-end"], LONG)?.expect(0, &[])?;
        ensure_exact(&folder("fed"), &fed, count, workspace)?;
        ensure_exact(&folder("new"), &new, 2_000, workspace)?;
        ensure_exact(&folder("gone"), &gone, 2_000, workspace)
    })
}

/// Waits until all rows of some records are there, each once.
fn ensure_gets_all(workspace: &Workspace, lake: &Path, records: &Records, count: u64) -> anyhow::Result<()> {
    wait::until("all rows", SHORT, || match ensure_exact(lake, records, count, workspace) {
        Ok(()) => Ok(Look::Done(())),
        Err(error) => Ok(Look::NotYet(format!("{error:#}"))),
    })
}

/// A component with one more custom section: other bytes, another digest, the same plugin.
pub(crate) fn with_section(component: &[u8]) -> Vec<u8> {
    let mut longer = component.to_vec();
    longer.extend_from_slice(b"\0\x07\x05spare!");
    longer
}

/// Scenario: the plugin's file of a pipeline that is fed all the time is written anew under `--watch`: with garbage, with a plugin that
/// imports what is not granted, and with a newer build of itself; and that of a second pipeline, which pins its digest.
/// Guarantees: garbage, the stranger and the pinned one are refused in words, and the old plugins go on; the newer build takes over;
/// every row is there once.
#[test]
fn a_plugin_file_that_changes_is_swapped_and_a_bad_one_is_refused() -> anyhow::Result<()> {
    scenario("swap", |workspace| {
        let kafka = kafka()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let fed = Records { seed: 8, topic: unique("swap") };
        kafka.create_topic(&fed.topic, PARTITIONS)?;
        let keep = fs::read(plugin("keep_values"))?;
        let (swapped, pinned) = (workspace.write("swapped.wasm", &keep)?, workspace.write("pinned.wasm", &keep)?);
        let built = plugin("keep_values").display().to_string();
        for (name, file, more) in
            [("free", &swapped, String::new()), ("fixed", &pinned, format!("\n    sha256: {}", sha256(&pinned)?))]
        {
            let folder = workspace.path().join(name);
            let text = yaml(&pipeline(name, &fed.topic, &unique("group"), &folder)?);
            let text = text.replace(&built, &format!("{}{more}", file.display()));
            workspace.write(&format!("conf/{name}.yaml"), text)?;
        }
        workspace.write(
            "conf/all.yaml",
            format!("tenants: {{default: {{}}}}\ntelemetry: {{log_format: text, listen: \"{address}\"}}\n"),
        )?;
        let feed = Feed::start(kafka, &fed, 0, RATE)?;
        let mut process = workspace.start(&["run", "conf", "--watch"])?;
        let both = |page: &str| page.contains("free: running") && page.contains("fixed: running");
        wait_for_page(&mut process, &address, "both", both)?;
        for (bytes, words) in [
            (b"garbage".to_vec(), "swapped.wasm is not WebAssembly"),
            (fs::read(plugin("enrich_lookup"))?, "# refused: free"),
        ] {
            workspace.write("swapped.wasm", bytes)?;
            wait_for_page(&mut process, &address, words, |page| page.contains(words) && both(page))?;
        }
        workspace.write("pinned.wasm", with_section(&keep))?;
        wait_for_page(&mut process, &address, "the digest", |page| {
            page.contains("# refused: fixed") && page.contains("but the configuration wants") && both(page)
        })?;
        ensure!(lines_with(&process, "begins anew") == 0, "something was swapped");
        workspace.write("swapped.wasm", with_section(&keep))?;
        process.wait_for_text("begins anew", SHORT)?;
        wait_for_page(&mut process, &address, "the swap", |page| both(page) && !page.contains("# refused: free"))?;
        let count = feed.finish()?;
        ensure_all_there(kafka, &fed, count)?;
        for name in ["free", "fixed"] {
            ensure_gets_all(workspace, &workspace.path().join(name), &fed, count)
                .with_context(|| process.log_tail())?;
        }
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])
    })
}

/// Scenario: a pipeline that is fed all the time is changed so that everything can be checked and nothing can be written: its sink is
/// below a file.
/// Guarantees: it fails before its first commit, which is told with its name; what ran before runs again, and every row is there once.
#[test]
fn a_changed_pipeline_that_fails_before_its_first_commit_gives_way_to_what_ran_before() -> anyhow::Result<()> {
    scenario("reload-back", |workspace| {
        let kafka = kafka()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let fed = Records { seed: 9, topic: unique("reload-back") };
        kafka.create_topic(&fed.topic, PARTITIONS)?;
        let (lake, group) = (workspace.path().join("lake"), unique("group"));
        let right = yaml(&pipeline("fed", &fed.topic, &group, &lake)?);
        workspace.write("conf/fed.yaml", &right)?;
        workspace.write(
            "conf/all.yaml",
            format!("tenants: {{default: {{}}}}\ntelemetry: {{log_format: text, listen: \"{address}\"}}\n"),
        )?;
        let feed = Feed::start(kafka, &fed, 0, RATE)?;
        let mut process = workspace.start(&["run", "conf"])?;
        wait_for_page(&mut process, &address, "the pipeline", |page| page.contains("fed: running"))?;
        workspace.write("a-file", "no folder")?;
        let below_a_file = workspace.path().join("a-file/lake");
        workspace.write("conf/fed.yaml", yaml(&pipeline("fed", &fed.topic, &group, &below_a_file)?))?;
        process.signal(Signal::Hangup)?;
        wait_for_page(&mut process, &address, "the way back", |page| {
            page.contains("refused: fed, which goes on as before: it failed before its first commit")
                && page.contains("fed: running")
        })?;
        let count = feed.finish()?;
        ensure_all_there(kafka, &fed, count)?;
        ensure_gets_all(workspace, &lake, &fed, count)?;
        ensure!(lines_with(&process, "the changed pipeline is refused") == 1, "refused more than once");
        end(process, Signal::Terminate, LONG)?.expect(0, &["asked to stop"])?;
        ensure_exact(&lake, &fed, count, workspace)
    })
}

/// A component that keeps a compiler busy: many values that all live across many loops.
fn compile_bomb() -> Vec<u8> {
    /// An unsigned number as WebAssembly writes it.
    fn leb128(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let [low, ..] = number.to_le_bytes();
            number >>= 7;
            bytes.push(if number == 0 { low & 0x7f } else { low | 0x80 });
            if number == 0 {
                return bytes;
            }
        }
    }
    /// Bytes with their length before them.
    fn sized(bytes: &[u8]) -> Vec<u8> {
        [leb128(bytes.len()), bytes.to_vec()].concat()
    }
    let (values, loops) = (10_000, 3_000);
    // (func (param i32) (local i64...) (loop local.get N; i64.const 1; i64.add; local.set N; local.get 0; br_if 0)...)
    let mut body = [vec![1], leb128(values), vec![0x7e]].concat();
    for number in 0..loops {
        let local = leb128(1 + number % values);
        body.extend([vec![0x03, 0x40, 0x20], local.clone(), vec![0x42, 1, 0x7c, 0x21], local].concat());
        body.extend([0x20, 0, 0x0d, 0, 0x0b]);
    }
    for number in 1..=values {
        body.extend([vec![0x20], leb128(number), vec![0x1a]].concat());
    }
    body.push(0x0b);
    let section = |id: u8, content: Vec<u8>| [vec![id], sized(&content)].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 1, 0x7f, 0]),
        section(3, vec![1, 0]),
        section(10, [vec![1], sized(&body)].concat()),
    ]
    .concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
}

/// Scenario: a reload brings a tenant whose plugin compiles for long, and one right after it another tenant's pipeline; then the first
/// tenant's pipeline is taken out again.
/// Guarantees: the other tenant's pipeline begins while that plugin still compiles; what is taken out is forgotten; every reload counts.
#[test]
fn a_plugin_that_compiles_for_long_holds_up_no_reload_of_another_tenant() -> anyhow::Result<()> {
    scenario("reload-bomb", |workspace| {
        let kafka = kafka()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let (first, second) =
            (filled_topic(kafka, "reload-first", 10, 2_000)?, filled_topic(kafka, "reload-second", 11, 2_000)?);
        let of = |name: &str, tenant: &str, topic: &str| -> anyhow::Result<String> {
            let text = yaml(&pipeline(name, topic, &unique("group"), &workspace.path().join(name))?);
            Ok(format!("tenant: {tenant}\n{text}"))
        };
        workspace.write(
            "conf/all.yaml",
            format!("tenants: {{shop: {{}}, guests: {{}}}}\ntelemetry: {{log_format: text, listen: \"{address}\"}}\n"),
        )?;
        workspace.write("conf/first.yaml", of("first", "shop", &first.topic)?)?;
        let mut process = workspace.start(&["run", "conf"])?;
        wait_for_page(&mut process, &address, "the first", |page| page.contains("first: running"))?;

        let bomb = workspace.write("bomb.wasm", compile_bomb())?;
        let guest = of("guest", "guests", &first.topic)?;
        let guest = guest.replace(&plugin("keep_values").display().to_string(), &bomb.display().to_string());
        ensure!(guest.contains("bomb.wasm"), "the guest has another plugin: {guest}");
        workspace.write("conf/guest.yaml", guest)?;
        process.signal(Signal::Hangup)?;
        process.wait_for_text("reading the configuration again", SHORT)?;
        workspace.write("conf/second.yaml", of("second", "shop", &second.topic)?)?;
        process.signal(Signal::Hangup)?;
        // The guest is told of once it has failed.
        wait_for_page(&mut process, &address, "the second before the guest", |page| {
            page.contains("second: running") && !page.contains("guest")
        })?;
        ensure_gets_all(workspace, &workspace.path().join("second"), &second, 2_000)?;

        fs::remove_file(workspace.path().join("conf/guest.yaml"))?;
        process.signal(Signal::Hangup)?;
        wait_for_three_reloads(&address)?;
        let (_, page) = http::get(&address, "/healthz")?;
        ensure!(!page.contains("guest"), "{page}");
        end(process, Signal::Terminate, SHORT)?.expect(0, &["asked to stop"])?;
        ensure_exact(&workspace.path().join("first"), &first, 2_000, workspace)
    })
}

/// The digest of a file, as `sha256sum` prints it.
pub(crate) fn sha256(path: &Path) -> anyhow::Result<String> {
    let printed = Command::new("sha256sum").arg(path).output()?.stdout;
    let printed = String::from_utf8(printed)?;
    printed.split_whitespace().next().map(str::to_owned).context("sha256sum printed nothing")
}
