//! One process, one server: what is read, where it begins, and when it ends.

use std::{thread, time::Duration};

use anyhow::ensure;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, end, finish, local_sink, s3_sink},
    services::{process::Signal, redis::add_entries},
    wait::{self, Look},
};
use serde_json::json;

use super::{
    Feed, add_rows, compare, configure, expect_exact, expected, keys, listed, push_rows, redis, row, rows_so_far,
};
use crate::{
    once::abort_recorded_uploads,
    shared::{LONG, SHORT, end_at, s3, scenario, unique},
};

/// Scenario: `continuous: false` over streams, twice with entries in between, while entries keep coming the second time.
/// Guarantees: each run ends by itself with 0, the second goes on where the first ended, and every row is there once.
#[test]
fn a_run_that_is_not_continuous_reads_what_is_there_and_ends() -> anyhow::Result<()> {
    scenario("redis-ends", |workspace| {
        let (redis, streams) = (redis()?, keys("ends", 3));
        let source = redis.source() + &listed("stream_keys", &streams) + "  continuous: false\n  consumer_group: lag\n";
        configure(workspace, &source, "")?;
        let mut link = redis.connection()?;
        add_rows(&mut link, &streams, 0..20_000)?;
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &[])?;
        expect_exact(workspace, 20_000)?;
        let (mut own, names) = (redis.connection()?, streams.clone());
        let feed = Feed::start(20_000, 500, move |rows| add_rows(&mut own, &names, rows));
        workspace.run(&["pipeline.yaml"], LONG)?.expect(0, &[])?;
        let count = feed.finish()?;
        workspace.run(&["pipeline.yaml"], LONG)?.expect(0, &[])?;
        expect_exact(workspace, count)?;
        // Lag tools see the group where the ledger is.
        for stream in &streams {
            let groups: Vec<redis::Value> = redis::cmd("XINFO").arg("GROUPS").arg(stream).query(&mut link)?;
            let last: Vec<Vec<redis::Value>> =
                redis::cmd("XREVRANGE").arg(stream).arg("+").arg("-").arg("COUNT").arg(1).query(&mut link)?;
            let Some(redis::Value::BulkString(id)) = last.first().and_then(|entry| entry.first()) else {
                anyhow::bail!("no entry in {stream}: {last:?}");
            };
            let id = String::from_utf8(id.clone())?;
            ensure!(format!("{groups:?}").contains(&id), "the group of {stream} is not at {id}: {groups:?}");
        }
        Ok(())
    })
}

/// Scenario: the same over lists, where one is empty and one does not exist.
/// Guarantees: the run ends by itself, in the order of the lists, and the lists are empty.
#[test]
fn lists_are_drained_in_their_order() -> anyhow::Result<()> {
    scenario("redis-lists", |workspace| {
        let (redis, lists) = (redis()?, keys("drained", 2));
        let source = redis.source() + &listed("list_keys", &lists) + "  continuous: false\n";
        configure(workspace, &source, "  lanes: 1\n")?;
        let mut link = redis.connection()?;
        push_rows(&mut link, lists.get(..1).unwrap_or_default(), 0..30_000)?;
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &[])?;
        compare(workspace, 30_000)?.expect_exact()?;
        for list in &lists {
            let left: Vec<String> = redis::cmd("KEYS").arg(format!("*{list}*")).query(&mut link)?;
            ensure!(left.is_empty(), "left in Redis: {left:?}");
        }
        Ok(())
    })
}

/// Scenario: `list_read: pop` over a list, with commits once an hour, until SIGTERM.
/// Guarantees: what is read is gone at once and kept nowhere in Redis, as the user asked for; a drain still makes rows of all of it.
#[test]
fn lists_can_be_popped() -> anyhow::Result<()> {
    scenario("redis-pop", |workspace| {
        let (redis, lists) = (redis()?, keys("popped", 1));
        let source = redis.source() + &listed("list_keys", &lists) + "  list_read: pop\n";
        configure(workspace, &source, "  lanes: 2\n")?;
        let yaml = std::fs::read_to_string(workspace.path().join("pipeline.yaml"))?;
        workspace.write("pipeline.yaml", yaml.replace("commit_interval: 200ms", "commit_interval: 1h"))?;
        let mut link = redis.connection()?;
        push_rows(&mut link, &lists, 0..5_000)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        let list = super::key_of(&lists, 0);
        wait::until("the list to be empty", SHORT, || {
            process.ensure_running()?;
            let left: Vec<String> = redis::cmd("KEYS").arg(format!("*{list}*")).query(&mut link)?;
            Ok(Look::when(left.is_empty(), format!("left in Redis: {left:?}")))
        })?;
        ensure!(rows_so_far(workspace) == 0, "rows are there before the commit");
        end(process, Signal::Terminate, SHORT)?.expect(0, &["source.list_read is pop"])?;
        compare(workspace, 5_000)?.expect_exact()
    })
}

/// Scenario: entries as flat records of all their fields, with ids as keys, in a stream without a schema.
/// Guarantees: each field is a column of texts.
#[test]
fn an_entry_can_be_a_record_of_its_fields() -> anyhow::Result<()> {
    scenario("redis-record", |workspace| {
        let (redis, streams) = (redis()?, keys("fields", 1));
        let source = redis.source() + &listed("stream_keys", &streams) + "  entry: record\n  continuous: false\n";
        let folder = workspace.path().join("lake");
        workspace.write("pipeline.yaml", Configuration::new("fields", source, local_sink(&folder)).yaml())?;
        let fields = |number: u64| vec![("number", number.to_string()), ("text", format!("ü \" {number}\n"))];
        add_entries(&mut redis.connection()?, (0..5_000).map(|number| (super::key_of(&streams, 0), fields(number))))?;
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        let seen = Lake::Local(&folder).read(Reader::DuckDb, &[], workspace.path())?;
        let rows =
            move |number: u64| json!({"number": number.to_string(), "text": format!("ü \" {number}\n")}).to_string();
        seen.compare(&Expected::new(Box::new(move || Box::new((0..5_000).map(rows)))))?.expect_exact()
    })
}

/// Scenario: a pipeline at least once is switched to exactly once; and one begins at the end of a stream.
/// Guarantees: what the group had acknowledged is not read again, and the rest is; `start: latest` reads what comes after.
#[test]
fn a_stream_begins_where_its_group_is() -> anyhow::Result<()> {
    scenario("redis-begin", |workspace| {
        let (redis, streams) = (redis()?, keys("begin", 2));
        let source = redis.source() + &listed("stream_keys", &streams) + "  consumer_group: lake\n";
        let mut link = redis.connection()?;
        add_rows(&mut link, &streams, 0..4_000)?;
        configure(workspace, &source, "  delivery: at_least_once\n")?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], SHORT)?.expect(0, &[])?;
        compare(workspace, 4_000)?.expect_exact()?;
        add_rows(&mut link, &streams, 4_000..6_000)?;
        configure(workspace, &source, "  delivery: exactly_once\n")?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], SHORT)?.expect(0, &[])?;
        // The ledger knows nothing of the files from before.
        compare(workspace, 6_000)?.expect_exact()?;
        configure(workspace, &(redis.source() + &listed("stream_keys", &streams) + "  start: latest\n"), "")?;
        std::fs::remove_dir_all(workspace.path().join("lake"))?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        process.wait_for_text("streams assigned", SHORT)?;
        thread::sleep(Duration::from_secs(3));
        add_rows(&mut link, &streams, 0..1_000)?;
        wait::until("the rows that came", SHORT, || {
            let rows = rows_so_far(workspace);
            Ok(Look::when(rows >= 1_000, format!("{rows} rows")))
        })?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        expect_exact(workspace, 1_000)
    })
}

/// Scenario: a group is destroyed, then its stream deleted, while they are read at least once; entries are deleted before they are read.
/// Guarantees: the run goes on, says so, and reads what comes then.
#[test]
fn a_group_that_is_deleted_is_made_anew() -> anyhow::Result<()> {
    scenario("redis-nogroup", |workspace| {
        let (redis, streams) = (redis()?, keys("gone", 1));
        let source = redis.source() + &listed("stream_keys", &streams) + "  consumer_group: lake\n";
        configure(workspace, &source, "  delivery: at_least_once\n  lanes: 1\n")?;
        let (mut link, stream) = (redis.connection()?, super::key_of(&streams, 0));
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        let mut come = |rows: std::ops::Range<u64>| {
            let (first, last) = (rows.start, rows.end);
            add_rows(&mut link, &streams, rows)?;
            wait::until("the rows that came", SHORT, || {
                process.ensure_running()?;
                let found = rows_so_far(workspace);
                Ok(Look::when(found >= last, format!("{found} rows, from {first}")))
            })
        };
        come(0..1_000)?;
        redis::cmd("XGROUP").arg("DESTROY").arg(&stream).arg("lake").exec(&mut redis.connection()?)?;
        come(1_000..2_000)?;
        redis::cmd("DEL").arg(&stream).exec(&mut redis.connection()?)?;
        come(2_000..3_000)?;
        let finished = end(process, Signal::Terminate, SHORT)?;
        finished.expect(0, &["the group is made anew"])?;
        compare(workspace, 3_000)?.expect_none_lost()
    })
}

/// Scenario: a process under exactly once dies when its files on S3 are recorded and not visible, and their uploads are gone; once more
/// with the stream trimmed.
/// Guarantees: the next one reads the ids again and writes the same rows; where it cannot, it says what is missing and why.
#[test]
fn lost_uploads_are_written_again_from_the_stream() -> anyhow::Result<()> {
    scenario("redis-again", |workspace| {
        let (redis, s3, streams, prefix) = (redis()?, s3()?, keys("again", 2), unique("again"));
        let source = redis.source() + &listed("stream_keys", &streams) + "  continuous: false\n";
        let mut configuration = Configuration::new("again", source, s3_sink(s3.access(), &prefix));
        configuration.pipeline = "  commit_interval: 200ms\n".to_owned();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let mut link = redis.connection()?;
        add_rows(&mut link, &streams, 0..5_000)?;
        let lose = |workspace: &mut _| {
            end_at(workspace, "recorded:1")?;
            abort_recorded_uploads(s3, &prefix, "again")
        };
        lose(workspace)?;
        workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &["written once more"])?;
        Lake::S3(s3, &prefix).read(Reader::DuckDb, &[], workspace.path())?.compare(&expected(5_000))?.expect_exact()?;
        add_rows(&mut link, &streams, 5_000..6_000)?;
        lose(workspace)?;
        for stream in &streams {
            redis::cmd("XTRIM").arg(stream).arg("MAXLEN").arg("=").arg(1).exec(&mut link)?;
        }
        workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(1, &["cannot be read once more: the stream", "trimmed"])
    })
}

/// Scenario: a stream is trimmed by more than was read while the pipeline is away; another one is deleted and made anew with ids of its own.
/// Guarantees: what is missing is told; entries below what was read are an error that names them, never rows and never passed over.
#[test]
fn what_is_missing_is_told() -> anyhow::Result<()> {
    scenario("redis-missing", |workspace| {
        let (redis, streams) = (redis()?, keys("missing", 1));
        let stream = super::key_of(&streams, 0);
        configure(workspace, &(redis.source() + &listed("stream_keys", &streams) + "  continuous: false\n"), "")?;
        let mut link = redis.connection()?;
        add_rows(&mut link, &streams, 0..1_000)?;
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        add_rows(&mut link, &streams, 5_000..5_100)?;
        redis::cmd("XTRIM").arg(&stream).arg("MAXLEN").arg("=").arg(50).exec(&mut link)?;
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(0, &["was trimmed before its entries were read"])?;
        redis::cmd("DEL").arg(&stream).exec(&mut link)?;
        let mut process = workspace.start(&["run", "pipeline.yaml", "--set", "source.continuous=true"])?;
        process.wait_for_text("the stream ends before what was read of it", SHORT)?;
        redis::cmd("XADD").arg(&stream).arg("5-1").arg("value").arg(row(7)).exec(&mut link)?;
        let words = ["the entry 5-1 came after entries up to", "give the pipeline another `name`"];
        finish(process, SHORT)?.expect(1, &words)?;
        let strange = keys("strange", 1);
        configure(workspace, &(redis.source() + &listed("stream_keys", &strange) + "  continuous: false\n"), "")?;
        redis::cmd("XADD").arg(&strange).arg("99999999999999-0").arg("value").arg(row(8)).exec(&mut link)?;
        workspace
            .run(&["run", "pipeline.yaml"], SHORT)?
            .expect(1, &["99999999999999-0", "exactly_once cannot count", "at_least_once"])
    })
}
