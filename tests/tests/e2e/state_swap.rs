//! A plugin with state is swapped while it counts.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use fs_data_sink_tests::{
    lake::Lake,
    program::{end, kafka_source, local_sink, plugin},
    services::{free_port, process::Signal},
    wait::{self, Look},
};

use crate::{
    reload::{lines_with, wait_for_page, with_section, yaml},
    shared::{LONG, SHORT, kafka, scenario, unique},
    state::{PARTITIONS, compare, counting, counts_in, counts_of, feed},
};

/// Swaps for another build of the same plugin.
const SWAPS: u8 = 2;

/// Scenario: a pipeline counts by key and time window over six partitions while records keep coming; its component's file is
/// replaced by another build of it twice; then its config by one that cannot read the state. At last the file is swapped once
/// more, and SIGTERM follows at once; another run reads to the end.
/// Guarantees: each new build goes on with the state of the one before; the config that cannot is refused in words and the old
/// plugin goes on with its state; the counts of every window add up to exactly the records that there were.
#[test]
fn a_swapped_plugin_goes_on_with_the_state_of_the_old_one() -> anyhow::Result<()> {
    scenario("state-swap", |workspace| {
        let (kafka, topic) = (kafka()?, unique("state-swap"));
        kafka.create_topic(&topic, i32::try_from(PARTITIONS)?)?;
        let built = plugin("count_windows");
        let mut component = fs::read(&built)?;
        let file = workspace.write("windows.wasm", &component)?;
        let folder = workspace.path().join("lake");
        let address = format!("127.0.0.1:{}", free_port()?);
        let source = kafka_source(kafka.bootstrap(), &topic, &unique("state-swap"));
        let mut configuration = counting(source, local_sink(&folder));
        configuration.plugins =
            configuration.plugins.replace(&built.display().to_string(), &file.display().to_string());
        configuration.telemetry.clear();
        configuration.pipeline = "  commit_interval: 200ms\n  lanes: 2\n".into();
        let right = yaml(&configuration);
        workspace.write("conf/counts.yaml", &right)?;
        workspace.write(
            "conf/all.yaml",
            format!("tenants: {{default: {{}}}}\ntelemetry: {{log_format: text, listen: \"{address}\"}}\n"),
        )?;
        let stopped = Arc::new(AtomicBool::new(false));
        let feeding = thread::spawn({
            let (producer, topic, stopped) = (kafka.producer()?, topic.clone(), Arc::clone(&stopped));
            move || feed(&producer, &topic, &stopped)
        });
        let mut process = workspace.start(&["run", "conf", "--watch"])?;
        // Commits are logged: new ones are of whoever runs now.
        let wait_for_commits = |process: &mut fs_data_sink_tests::services::process::Process| {
            let before = lines_with(process, "generation committed");
            wait::until("more commits", SHORT, || {
                process.ensure_running()?;
                let commits = lines_with(process, "generation committed");
                Ok(Look::when(commits >= before + 10, format!("{commits} commits")))
            })
        };
        wait_for_commits(&mut process)?;
        for swap in 1..=SWAPS {
            component = with_section(&component);
            workspace.write("windows.wasm", &component)?;
            wait::until("the swap", SHORT, || {
                process.ensure_running()?;
                let swaps = lines_with(&process, "begins anew");
                Ok(Look::when(swaps >= usize::from(swap), format!("{swaps} swaps")))
            })?;
            wait_for_commits(&mut process)?;
        }
        workspace.write("conf/counts.yaml", right.replace("window_seconds: 10", "window_seconds: 7"))?;
        wait_for_page(&mut process, &address, "the refusal", |page| {
            page.contains("# refused: counts") && page.contains("counts: running")
        })?;
        process.wait_for_text("cannot go on from its recorded state of ", SHORT)?;
        wait_for_commits(&mut process)?;
        workspace.write("conf/counts.yaml", &right)?;
        stopped.store(true, Ordering::Relaxed);
        let count = feeding.join().map_err(|_| anyhow::anyhow!("the feed panicked"))??;
        workspace.write("windows.wasm", with_section(&component))?;
        end(process, Signal::Terminate, LONG)?.expect(0, &[])?;
        workspace.run(&["run", "conf", "--until-end"], LONG)?.expect(0, &[])?;
        compare(&counts_in(Lake::Local(&folder), workspace.path())?.0, &counts_of(count))?;
        let verified = workspace.run(&["ledger", "verify", "conf/counts.yaml"], SHORT)?;
        verified.expect(0, &["the store is as the ledger says"])
    })
}
