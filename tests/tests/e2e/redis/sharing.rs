//! Several processes, and what the dead leave behind.

use std::{thread, time::Duration};

use anyhow::ensure;
use fs_data_sink_tests::{
    lake::Lake,
    program::end,
    services::{process::Signal, redis::pending},
    wait::{self, Look},
};

use super::{Feed, add_rows, compare, configure, expect_exact, keys, listed, push_rows, redis, rows_so_far};
use crate::shared::{LONG, SHORT, say, scenario};

/// Scenario: two processes share six streams under exactly once while entries keep coming; one is killed, later a third one joins and is
/// stopped.
/// Guarantees: no row comes twice and none is lost; both had streams; the streams of the dead are taken over.
#[test]
fn two_processes_share_streams() -> anyhow::Result<()> {
    scenario("redis-shared", |workspace| {
        let (redis, streams) = (redis()?, keys("shared", 6));
        configure(workspace, &(redis.source() + &listed("stream_keys", &streams)), "  lanes: 2\n")?;
        let mut link = redis.connection()?;
        let names = streams.clone();
        let feed = Feed::start(0, 2_000, move |rows| add_rows(&mut link, &names, rows));
        let mut first = workspace.start(&["run", "pipeline.yaml"])?;
        thread::sleep(Duration::from_secs(2));
        let mut second = workspace.start(&["run", "pipeline.yaml"])?;
        second.wait_for_text("generation committed", SHORT)?;
        thread::sleep(Duration::from_secs(2));
        first.ensure_running()?;
        ensure!(
            first.log().contains("partitions are taken away"),
            "the first gave nothing away:\n{}",
            first.log_tail()
        );
        first.kill()?;
        thread::sleep(Duration::from_secs(4));
        let third = workspace.start(&["run", "pipeline.yaml"])?;
        thread::sleep(Duration::from_secs(3));
        end(third, Signal::Terminate, SHORT)?.expect(0, &["streams assigned"])?;
        let count = feed.finish()?;
        wait::until("all rows", LONG, || {
            second.ensure_running()?;
            let rows = rows_so_far(workspace);
            Ok(Look::when(rows >= count, format!("{rows} of {count} rows")))
        })?;
        end(second, Signal::Terminate, SHORT)?.expect(0, &[])?;
        say(&format!("shared: {count} rows by three processes"));
        expect_exact(workspace, count)
    })
}

/// Scenario: a foreign consumer of the group was given 10,000 entries and never came back.
/// Guarantees: they are claimed after `claim_idle` and become rows; nothing stays pending.
#[test]
fn what_a_dead_consumer_had_is_taken_over() -> anyhow::Result<()> {
    scenario("redis-dead", |workspace| {
        let (redis, streams) = (redis()?, keys("dead", 1));
        let (mut link, stream) = (redis.connection()?, super::key_of(&streams, 0));
        add_rows(&mut link, &streams, 0..10_000)?;
        redis::cmd("XGROUP").arg("CREATE").arg(&stream).arg("lake").arg("0").exec(&mut link)?;
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("lake").arg("ghost").arg("COUNT").arg(10_000).arg("STREAMS").arg(&stream).arg(">");
        read.exec(&mut link)?;
        ensure!(pending(&mut link, &stream, "lake")? == 10_000);
        let source = redis.source() + &listed("stream_keys", &streams) + "  consumer_group: lake\n  claim_idle: 5s\n";
        configure(workspace, &source, "  delivery: at_least_once\n")?;
        add_rows(&mut link, &streams, 10_000..11_000)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait::until("all rows", SHORT, || {
            process.ensure_running()?;
            let left = pending(&mut link, &stream, "lake")?;
            let rows = rows_so_far(workspace);
            Ok(Look::when(left == 0 && rows >= 11_000, format!("{rows} rows, {left} pending")))
        })?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &["entries of a dead consumer are claimed"])?;
        compare(workspace, 11_000)?.expect_none_lost()
    })
}

/// Scenario: entries that were delivered again and again, as to a consumer that dies of them.
/// Guarantees: those delivered more than `deliveries_max` times are dead letters with the reason; the others are rows.
#[test]
fn an_entry_that_kills_its_consumers_becomes_a_dead_letter() -> anyhow::Result<()> {
    scenario("redis-poison", |workspace| {
        let (redis, streams) = (redis()?, keys("poison", 1));
        let (mut link, stream) = (redis.connection()?, super::key_of(&streams, 0));
        redis::cmd("XGROUP").arg("CREATE").arg(&stream).arg("lake").arg("0").arg("MKSTREAM").exec(&mut link)?;
        add_rows(&mut link, &streams, 1_000..1_010)?;
        for _ in 0..4 {
            // New entries once, then the history of the same consumer, which counts each time.
            for from in [">", "0"] {
                let mut read = redis::cmd("XREADGROUP");
                read.arg("GROUP")
                    .arg("lake")
                    .arg("me")
                    .arg("COUNT")
                    .arg(10)
                    .arg("STREAMS")
                    .arg(&stream)
                    .arg(from)
                    .exec(&mut link)?;
            }
        }
        add_rows(&mut link, &streams, 0..500)?;
        let source = redis.source()
            + &listed("stream_keys", &streams)
            + "  consumer_group: lake\n  consumer_name: me\n  deliveries_max: 3\n  continuous: false\n";
        configure(workspace, &source, "  delivery: at_least_once\n  lanes: 1\n")?;
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        compare(workspace, 500)?.expect_exact()?;
        let folder = workspace.path().join("lake");
        let letters = Lake::Local(&folder).dead_letters("fromredis")?;
        ensure!(letters.len() == 10, "{} dead letters", letters.len());
        for letter in &letters {
            ensure!(letter.reason == ("source".to_owned(), "too-many-deliveries".to_owned()), "{}", letter.line);
        }
        ensure!(pending(&mut link, &stream, "lake")? == 0, "dead letters are acknowledged");
        Ok(())
    })
}

/// Scenario: two processes share a list and a stream at least once; one is killed while it holds items.
/// Guarantees: both work, and nothing is lost; what the dead one had is read by the other one.
#[test]
fn two_processes_share_a_list() -> anyhow::Result<()> {
    scenario("redis-shared-list", |workspace| {
        let (redis, lists) = (redis()?, keys("sharedlist", 1));
        // So long an interval that what is read is not committed when the process dies.
        configure(workspace, &(redis.source() + &listed("list_keys", &lists)), "  lanes: 1\n")?;
        let yaml = std::fs::read_to_string(workspace.path().join("pipeline.yaml"))?;
        workspace.write("slow.yaml", yaml.replace("commit_interval: 200ms", "commit_interval: 1h"))?;
        let mut link = redis.connection()?;
        push_rows(&mut link, &lists, 0..5_000)?;
        let mut slow = workspace.start(&["run", "slow.yaml"])?;
        wait::until("the list to be taken", SHORT, || {
            slow.ensure_running()?;
            let left: i64 = redis::cmd("LLEN").arg(&lists).query(&mut link)?;
            Ok(Look::when(left == 0, format!("{left} items")))
        })?;
        let mut other = workspace.start(&["run", "pipeline.yaml"])?;
        push_rows(&mut link, &lists, 5_000..5_100)?;
        thread::sleep(Duration::from_secs(3));
        slow.ensure_running()?;
        let before = rows_so_far(workspace);
        ensure!(before <= 100, "{before} rows: what a live consumer has was taken from it");
        slow.kill()?;
        wait::until("all rows", SHORT, || {
            other.ensure_running()?;
            let rows = rows_so_far(workspace);
            Ok(Look::when(rows >= 5_100, format!("{rows} rows")))
        })?;
        end(other, Signal::Terminate, SHORT)?.expect(0, &["items of a dead consumer come back"])?;
        compare(workspace, 5_100)?.expect_exact()
    })
}
