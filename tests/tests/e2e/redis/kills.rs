//! `kill -9` again and again over streams and lists. `FS_DATA_SINK_KILLS` says how often.

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::Workspace,
    records::Random,
};

use super::{Feed, add_rows, compare, configure, key_of, keys, listed, push_rows, redis, row};
use crate::{
    kill::{kills, live_and_die},
    shared::{LONG, SHORT, say, scenario, seed},
};

/// Rows a second: so many that each run has work, so few that the last run is short.
const RATE: u64 = 3_000;

/// Kills the pipeline while rows keep coming, then reads to the end: how many rows there are.
fn survive(workspace: &mut Workspace, once: bool, feed: Feed) -> anyhow::Result<u64> {
    let (seed, folder) = (seed(), workspace.path().join("lake"));
    let (lake, mut random) = (Lake::Local(&folder), Random::new(seed));
    let observer = lake.observe(once, workspace.path())?;
    let kills = kills(12);
    for kill in 0..kills {
        live_and_die(workspace, lake, once, &mut random).with_context(|| format!("seed {seed}, run {kill}"))?;
    }
    workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
    let count = feed.finish()?;
    let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?;
    finished.expect(0, &[]).with_context(|| format!("seed {seed}"))?;
    let (looks, opened) = observer.finish()?;
    say(&format!(
        "{kills} kills over Redis (seed {seed}): {count} rows; the observer looked {looks} times and opened {opened} files"
    ));
    Ok(count)
}

/// Scenario: a pipeline over four streams under exactly once is killed at random moments and between the steps of a commit, while
/// entries keep coming.
/// Guarantees: every row is there exactly once, no row is there twice at any time, and the ledger agrees with the store.
#[test]
fn kills_double_no_row_of_streams() -> anyhow::Result<()> {
    scenario("redis-once-kills", |workspace| {
        let (redis, streams) = (redis()?, keys("stream", 4));
        configure(workspace, &(redis.source() + &listed("stream_keys", &streams)), "")?;
        // The observer knows rows by their positions.
        let yaml = std::fs::read_to_string(workspace.path().join("pipeline.yaml"))?;
        let columns = "schema:\n  metadata_columns: [topic, partition, offset]\n";
        workspace.write("pipeline.yaml", yaml.replace("schema:\n", columns))?;
        let (mut link, names) = (redis.connection()?, streams.clone());
        let feed = Feed::start(0, RATE, move |rows| {
            let mut pipeline = redis::pipe();
            for number in rows {
                // Ids of our own, so that the offset of each row is known.
                let id = format!("{}-{}", number + 1, number % 3);
                pipeline.cmd("XADD").arg(key_of(&names, number)).arg(id).arg("value").arg(row(number)).ignore();
            }
            Ok(pipeline.exec(&mut link)?)
        });
        let count = survive(workspace, true, feed)?;
        let expected = Expected::new(Box::new(move || {
            let streams = streams.clone();
            Box::new((0..count).map(move |number| positioned_row(&streams, number)))
        }));
        let folder = workspace.path().join("lake");
        let seen = Lake::Local(&folder).read(Reader::DuckDb, &[], workspace.path())?;
        seen.compare(&expected)?.expect_exact()?;
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])
    })
}

/// A row with its position: the id `ms-n` is the offset `ms * 2^21 + n`.
fn positioned_row(streams: &[String], number: u64) -> String {
    let own = row(number);
    let (offset, topic) = (((number + 1) << 21) + number % 3, key_of(streams, number));
    format!("{{\"_offset\":{offset},\"_partition\":0,\"_topic\":\"{topic}\",{}", own.trim_start_matches('{'))
}

/// Scenario: the same over a consumer group, at least once.
/// Guarantees: no row is lost, and at the end nothing is pending.
#[test]
fn kills_lose_no_row_of_a_consumer_group() -> anyhow::Result<()> {
    scenario("redis-group-kills", |workspace| {
        let (redis, streams) = (redis()?, keys("grouped", 2));
        let source = redis.source() + &listed("stream_keys", &streams) + "  consumer_group: lake\n";
        configure(workspace, &source, "  delivery: at_least_once\n")?;
        let (mut link, names) = (redis.connection()?, streams.clone());
        let feed = Feed::start(0, RATE, move |rows| add_rows(&mut link, &names, rows));
        let count = survive(workspace, false, feed)?;
        let difference = compare(workspace, count)?;
        difference.expect_none_lost()?;
        say(&format!("{} rows came twice", difference.doubled));
        for stream in &streams {
            let left = fs_data_sink_tests::services::redis::pending(&mut redis.connection()?, stream, "lake")?;
            ensure!(left == 0, "{left} entries of {stream} are pending");
        }
        Ok(())
    })
}

/// Scenario: the same over two lists.
/// Guarantees: no row is lost, and at the end the lists and what consumers keep beside them are empty.
#[test]
fn kills_lose_no_row_of_lists() -> anyhow::Result<()> {
    scenario("redis-list-kills", |workspace| {
        let (redis, lists) = (redis()?, keys("list", 2));
        configure(workspace, &(redis.source() + &listed("list_keys", &lists)), "")?;
        let (mut link, names) = (redis.connection()?, lists.clone());
        let feed = Feed::start(0, RATE, move |rows| push_rows(&mut link, &names, rows));
        let count = survive(workspace, false, feed)?;
        let difference = compare(workspace, count)?;
        difference.expect_none_lost()?;
        say(&format!("{} rows came twice", difference.doubled));
        let mut link = redis.connection()?;
        for list in &lists {
            let left: Vec<String> = redis::cmd("KEYS").arg(format!("*{list}*")).query(&mut link)?;
            ensure!(left.is_empty(), "left in Redis: {left:?}");
        }
        Ok(())
    })
}
