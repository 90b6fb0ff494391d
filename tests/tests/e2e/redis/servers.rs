//! The ways in which Redis is run: with TLS and access control, watched by Sentinels, as a cluster; and what is said when it is not as
//! configured.

use std::{fmt::Write as _, thread, time::Duration};

use anyhow::ensure;
use fs_data_sink_tests::{
    program::end,
    services::{
        process::Signal,
        redis::{Cluster, PASSWORD, SecureRedis, Watched},
    },
    wait::{self, Look},
};

use super::{Feed, add_rows, compare, configure, expect_exact, keys, listed, push_rows, redis, row, rows_so_far};
use crate::shared::{LONG, SHORT, scenario};

/// What README.md says that a user needs.
const RULES: &str = "~* +ping +hello +client +select +eval +hset +hget +hdel +hmget +zadd +zrem +zscore +zrange +zrangebyscore +zremrangebyscore \
                     +pexpire +time +xread +xrange +xreadgroup +xack +xclaim +xpending +xinfo +xgroup +llen +lrange +ltrim +rpush +rpoplpush";

/// Scenario: a server that speaks TLS only and wants certificates; a user who may do what README.md says and nothing else. Streams
/// exactly once and at least once, and a list. Then without our certificate, with another authority, and with a user who may not read.
/// Guarantees: every row arrives; each refusal ends with 1 and names what to change.
#[test]
fn tls_and_access_control() -> anyhow::Result<()> {
    scenario("redis-tls", |workspace| {
        let secure = SecureRedis::start(RULES)?;
        let (streams, lists) = (keys("secure", 2), keys("securelist", 1));
        let files = secure.folder();
        let source = |user: &str, tls: &str| {
            format!(
                "  type: redis\n  host: localhost\n  port: {}\n  username: {user}\n  password: {PASSWORD}\n  tls: {{{tls}}}\n  \
                 continuous: false\n  session_timeout: 1500ms\n",
                secure.port()
            )
        };
        let trusted =
            format!("ca_file: {0}/ca.crt, cert_file: {0}/client.crt, key_file: {0}/client.key", files.display());
        let add = |rows: std::ops::Range<u64>| {
            let mut input = String::new();
            for number in rows {
                // Writing into a string cannot fail.
                let value = row(number).replace('\\', "\\\\").replace('"', "\\\"");
                let _ = writeln!(input, "XADD {} * value \"{value}\"", super::key_of(&streams, number));
                let _ = writeln!(input, "RPUSH {} \"{value}\"", super::key_of(&lists, 0));
            }
            secure.cli(&[], &input).map(|_| ())
        };
        add(0..500)?;
        configure(workspace, &(source("lake", &trusted) + &listed("stream_keys", &streams)), "")?;
        workspace.run(&["validate", "pipeline.yaml", "--connect"], SHORT)?.expect(0, &[])?;
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        expect_exact(workspace, 500)?;
        std::fs::remove_dir_all(workspace.path().join("lake"))?;
        let both = listed("stream_keys", &streams) + &listed("list_keys", &lists) + "  consumer_group: lake\n";
        configure(workspace, &(source("lake", &trusted) + &both), "")?;
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        let twice = compare(workspace, 500)?;
        ensure!(twice.missing == 0 && twice.doubled == 500, "streams and the list have the same rows: {twice:?}");
        let refused = |user: &str, tls: &str, words: &[&str]| {
            configure(workspace, &(source(user, tls) + &listed("stream_keys", &streams)), "")?;
            let finished = workspace.run(&["run", "pipeline.yaml"], SHORT)?;
            ensure!(!finished.output.contains(PASSWORD), "the password is told:\n{}", finished.output);
            finished.expect(1, words)?;
            workspace.run(&["validate", "pipeline.yaml", "--connect"], SHORT)?.expect(1, words)
        };
        refused("lake", &format!("ca_file: {}/client.crt", files.display()), &["source.tls: no trust", "ca_file"])?;
        refused("lake", &format!("ca_file: {}/ca.crt", files.display()), &["source.tls: no trust", "cert_file"])?;
        refused("nobody", &trusted, &["does not let the user \"nobody\" in"])?;
        secure.cli(&["ACL", "SETUSER", "blind", "on", &format!(">{PASSWORD}"), "~other", "+@all"], "")?;
        refused("blind", &trusted, &["the user \"blind\" of Redis", "may not do this"])
    })
}

/// Scenario: a wrong password, no password, a key of another type, a server that is not there.
/// Guarantees: each is said in words by `validate --connect`, and the first three by a run, which ends with 1; no secret is told.
#[test]
fn what_is_wrong_is_said() -> anyhow::Result<()> {
    scenario("redis-wrong", |workspace| {
        let (redis, streams) = (redis()?, keys("wrong", 1));
        let stream = super::key_of(&streams, 0);
        let sound = redis.source() + &listed("stream_keys", &streams);
        let expect = |source: &str, words: &[&str]| {
            configure(workspace, source, "")?;
            let finished = workspace.run(&["validate", "pipeline.yaml", "--connect"], SHORT)?;
            ensure!(!finished.output.contains(PASSWORD) && !finished.output.contains("Wr0ng"), "{}", finished.output);
            finished.expect(1, words)
        };
        let port = redis.port().to_string();
        expect(&sound.replace(&port, "1"), &["cannot reach Redis at", ":1"])?;
        let mut wrong = vec![(sound.replace(PASSWORD, "Wr0ngS3cret"), "source.password: Redis at")];
        if sound.contains(PASSWORD) {
            wrong.push((sound.replace(&format!("  password: {PASSWORD}\n"), ""), "wants a password"));
        } else {
            wrong.clear();
        }
        redis::cmd("SET").arg(&stream).arg("text").exec(&mut redis.connection()?)?;
        wrong.push((sound.clone(), "the key holds something else than it should"));
        for (source, words) in wrong {
            expect(&source, &[words])?;
            let finished = workspace.run(&["run", "pipeline.yaml"], SHORT)?;
            finished.expect(1, &[words])?;
        }
        configure(workspace, &sound, "")?;
        let printed = workspace.run(&["validate", "pipeline.yaml", "--print"], SHORT)?;
        printed.expect(0, &["type: redis", "***"])?;
        ensure!(!printed.output.contains(PASSWORD), "{}", printed.output);
        Ok(())
    })
}

/// Scenario: a master and a replica with three Sentinels; the master is killed while streams are read exactly once and a list at least once.
/// Guarantees: both pipelines go on by themselves with the new master; the rows of the streams are there exactly once.
#[test]
fn a_failover_by_sentinels_is_survived() -> anyhow::Result<()> {
    scenario("redis-sentinel", |workspace| {
        let watched = Watched::start()?;
        let streams = keys("watched", 3);
        configure(workspace, &(watched.source() + &listed("stream_keys", &streams)), "")?;
        add_rows(&mut watched.connection()?, &streams, 0..5_000)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait::until("the first rows", SHORT, || {
            process.ensure_running()?;
            let rows = rows_so_far(workspace);
            Ok(Look::when(rows > 0, format!("{rows} rows")))
        })?;
        add_rows(&mut watched.connection()?, &streams, 5_000..8_000)?;
        watched.fail_over()?;
        add_rows(&mut watched.connection()?, &streams, 8_000..12_000)?;
        wait::until("all rows", LONG, || {
            process.ensure_running()?;
            let rows = rows_so_far(workspace);
            Ok(Look::when(rows >= 12_000, format!("{rows} rows")))
        })?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        expect_exact(workspace, 12_000)
    })
}

/// Scenario: the same over lists, at least once.
/// Guarantees: what the old master had told its replica is there; a commit that the failover swallowed comes twice at most.
#[test]
fn lists_survive_a_failover() -> anyhow::Result<()> {
    scenario("redis-sentinel-lists", |workspace| {
        let (watched, lists) = (Watched::start()?, keys("watchedlist", 2));
        configure(workspace, &(watched.source() + &listed("list_keys", &lists)), "  lanes: 2\n")?;
        push_rows(&mut watched.connection()?, &lists, 0..5_000)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait::until("the first rows", SHORT, || {
            process.ensure_running()?;
            let rows = rows_so_far(workspace);
            Ok(Look::when(rows > 0, format!("{rows} rows")))
        })?;
        watched.fail_over()?;
        push_rows(&mut watched.connection()?, &lists, 5_000..9_000)?;
        wait::until("all rows", LONG, || {
            process.ensure_running()?;
            let missing = compare(workspace, 9_000).map_or(9_000, |difference| difference.missing);
            Ok(Look::when(missing == 0, format!("{missing} rows are missing")))
        })?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        compare(workspace, 9_000)?.expect_none_lost()
    })
}

/// Scenario: a cluster of three nodes with streams and lists on all of them; exactly once, then at least once; a slot moves to another node
/// while they are read.
/// Guarantees: every row arrives, the rows of the streams exactly once.
#[test]
fn a_cluster_is_read() -> anyhow::Result<()> {
    scenario("redis-cluster", |workspace| {
        let cluster = Cluster::start()?;
        let (streams, lists) = (keys("clustered", 6), keys("clusteredlist", 6));
        configure(workspace, &(cluster.source() + &listed("stream_keys", &streams)), "")?;
        workspace.run(&["validate", "pipeline.yaml", "--connect"], SHORT)?.expect(0, &[])?;
        let (mut link, names) = (cluster.connection()?, streams.clone());
        let feed = Feed::start(0, 1_000, move |rows| {
            for number in rows {
                let key = super::key_of(&names, number);
                redis::cmd("XADD").arg(key).arg("*").arg("value").arg(row(number)).exec(&mut link)?;
            }
            Ok(())
        });
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        process.wait_for_text("generation committed", SHORT)?;
        let addresses = cluster.addresses();
        let first = addresses.first().cloned().unwrap_or_default();
        cluster.cli(&[
            "--cluster",
            "rebalance",
            &first,
            "--cluster-weight",
            &weight(&cluster)?,
            "--cluster-threshold",
            "1",
        ])?;
        thread::sleep(Duration::from_secs(2));
        let count = feed.finish()?;
        wait::until("all rows", LONG, || {
            process.ensure_running()?;
            let rows = rows_so_far(workspace);
            Ok(Look::when(rows >= count, format!("{rows} of {count} rows")))
        })?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        expect_exact(workspace, count)?;
        std::fs::remove_dir_all(workspace.path().join("lake"))?;
        let both = listed("stream_keys", &streams)
            + &listed("list_keys", &lists)
            + "  consumer_group: lake\n  continuous: false\n";
        configure(workspace, &(cluster.source() + &both), "")?;
        let mut link = cluster.connection()?;
        for number in count..count + 1_000 {
            redis::cmd("RPUSH").arg(super::key_of(&lists, number)).arg(row(number)).exec(&mut link)?;
        }
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &[])?;
        cluster.ensure_running()?;
        compare(workspace, count + 1_000)?.expect_exact()
    })
}

/// A weight of a half for the first node, so that some of its slots move.
pub(super) fn weight(cluster: &Cluster) -> anyhow::Result<String> {
    let first = cluster.addresses().first().cloned().unwrap_or_default();
    let port = first.rsplit(':').next().unwrap_or_default().to_owned();
    let id = cluster.cli(&["-p", &port, "CLUSTER", "MYID"])?;
    Ok(format!("{}=0.8", id.trim()))
}
