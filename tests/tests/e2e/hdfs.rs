//! A real HDFS, both ways into it, and the suite that every store is held against.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use fs_data_sink::{
    config::{S3Config, Secret, SinkKind},
    store::{Path as ObjectPath, Store, conformance::conform},
};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, Workspace, end, hdfs_sink, kafka_source},
    records::{PARTITIONS, Records},
    services::{
        free_port,
        hdfs::{Daemon, Hdfs, Way, is_staged, store, superuser},
        hdfs_pair::HdfsPair,
        hdfs_secure::HdfsSecure,
        process::{Process, Signal},
        runtime,
        s3::S3Access,
    },
    wait::{self, Look},
};

use crate::shared::{Feed, LONG, SHORT, ensure_all_there, filled_topic, hdfs, kafka, s3, scenario, unique};

/// How long a server is away.
const OUTAGE: Duration = Duration::from_secs(10);

/// Records a second meanwhile.
const RATE: u64 = 1_000;

/// Enough for many files in each commit.
const RECORDS: u64 = 20_000;

/// A scenario whose cluster's logs stay when it fails.
fn with_cluster(
    name: &str,
    hdfs: &Hdfs,
    body: impl FnOnce(&mut Workspace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    scenario(name, body).map_err(|error| error.context(format!("HDFS's logs: {}", hdfs.keep_log())))
}

/// The suite over a store.
fn suite(store: &Store) -> anyhow::Result<()> {
    runtime()?.block_on(async { tokio::time::timeout(LONG, conform(store)).await })?
}

/// Scenario: the suite of the stores over Hadoop's RPC.
/// Guarantees: what the product builds on holds for a real HDFS.
#[test]
fn hdfs_by_rpc_keeps_the_contract_of_stores() -> anyhow::Result<()> {
    let hdfs = hdfs()?;
    with_cluster("hdfs-suite-native", hdfs, |_| suite(&hdfs.store(Way::Native, "suite/native", &superuser())?))
}

/// Scenario: the suite of the stores over WebHDFS.
/// Guarantees: what the product builds on holds for our own client of it.
#[test]
fn hdfs_by_web_keeps_the_contract_of_stores() -> anyhow::Result<()> {
    let hdfs = hdfs()?;
    with_cluster("hdfs-suite-web", hdfs, |_| suite(&hdfs.store(Way::Web, "suite/web", &superuser())?))
}

/// Scenario: the suite of the stores over a real S3 server.
/// Guarantees: the same contract, so that what is said of one store is true of the other.
#[test]
fn s3_keeps_the_contract_of_stores_as_hdfs_does() -> anyhow::Result<()> {
    scenario("s3-suite", |_| {
        let S3Access { endpoint, bucket, region, key_id, secret } = s3()?.access().clone();
        let kind = SinkKind::S3(S3Config {
            bucket,
            prefix: unique("suite"),
            region,
            endpoint_url: Some(endpoint),
            access_key_id: Some(key_id),
            secret_access_key: Some(Secret::new(secret)),
        });
        suite(&store(kind)?)
    })
}

/// The lake has these records, as another reader sees a copy of it.
fn check(
    hdfs: &Hdfs,
    base_path: &str,
    scratch: &Path,
    records: &Records,
    count: u64,
    undisturbed: bool,
) -> anyhow::Result<()> {
    let seen = Lake::Hdfs(hdfs, base_path).read(Reader::PyArrow, &["country", "level"], scratch)?;
    seen.compare(&Expected::of_records(records, count))?.expect_exact()?;
    // What could not be removed during an outage stays in the staging folder until the sweep.
    let is_allowed = |name: &str| is_expected(name) || (!undisturbed && is_staged(name));
    let strange: Vec<_> = hdfs.list(base_path)?.into_iter().filter(|(name, _)| !is_allowed(name)).collect();
    ensure!(strange.is_empty(), "files that nobody wants: {strange:?}");
    Ok(())
}

/// Data, dead letters and the ledger; nothing temporary.
fn is_expected(name: &str) -> bool {
    let is_data = Path::new(name).extension().is_some_and(|it| it == "parquet") && !name.contains("/.");
    is_data || name.contains("/dead_letters/") || name.contains("/ledger/")
}

/// From a broker to HDFS until the end.
fn whole_path(name: &str, way: Way) -> anyhow::Result<()> {
    let (kafka, hdfs) = (kafka()?, hdfs()?);
    with_cluster(name, hdfs, |workspace| {
        let records = filled_topic(kafka, name, 21, RECORDS)?;
        let (group, base_path) = (unique("group"), format!("/lakes/{}", unique(name)));
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let sink = hdfs_sink(&hdfs.url(way), &base_path, &superuser()) + PARTITION_BY;
        let configuration = Configuration::new(name, source, sink).with_records_schema_and_plugins();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        check(hdfs, &base_path, workspace.path(), &records, RECORDS, true)
    })
}

/// Scenario: records go from Kafka through both plugins to HDFS by RPC.
/// Guarantees: pyarrow reads exactly the expected rows; nothing temporary stays.
#[test]
fn records_arrive_on_hdfs_by_rpc() -> anyhow::Result<()> {
    whole_path("hdfs-native", Way::Native)
}

/// Scenario: records go from Kafka through both plugins to HDFS by WebHDFS.
/// Guarantees: pyarrow reads exactly the expected rows; nothing temporary stays.
#[test]
fn records_arrive_on_hdfs_by_web() -> anyhow::Result<()> {
    whole_path("hdfs-web", Way::Web)
}

/// A server is killed in the middle, stays away, and returns; the run must complete with every record.
fn outage(name: &str, way: Way, daemon: Daemon) -> anyhow::Result<()> {
    let (kafka, hdfs) = (kafka()?, Hdfs::start()?);
    with_cluster(name, &hdfs, |workspace| {
        let records = Records { seed: 22, topic: unique(name) };
        kafka.create_topic(&records.topic, PARTITIONS)?;
        let (group, base_path) = (unique("group"), "/lake".to_owned());
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let sink = hdfs_sink(&hdfs.url(way), &base_path, &superuser()) + PARTITION_BY;
        let configuration = Configuration::new(name, source, sink).with_records_schema_and_plugins();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let feed = Feed::start(kafka, &records, 0, RATE)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait_for_more_files(&hdfs, &mut process, &base_path)?;
        hdfs.kill(daemon)?;
        thread::sleep(OUTAGE);
        process.ensure_running().context("during the outage")?;
        hdfs.start_again(daemon)?;
        wait_for_more_files(&hdfs, &mut process, &base_path).context("after the outage")?;
        let count = feed.finish()?;
        ensure_all_there(kafka, &records, count)?;
        let committed = kafka.wait_until_committed(&group, &records.topic, LONG);
        committed.with_context(|| process.log_tail())?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        check(&hdfs, &base_path, workspace.path(), &records, count, false)
    })
}

/// Work goes on: there are more files than now.
fn wait_for_more_files(hdfs: &Hdfs, process: &mut Process, base_path: &str) -> anyhow::Result<()> {
    let count = || -> anyhow::Result<usize> {
        Ok(hdfs
            .list(base_path)?
            .iter()
            .filter(|(name, _)| Path::new(name).extension() == Some("parquet".as_ref()))
            .count())
    };
    let before = count()?;
    wait::until("more files", LONG, || {
        process.ensure_running()?;
        let now = count()?;
        Ok(Look::when(now > before, format!("{now} files")))
    })
    .with_context(|| process.log_tail())
}

/// Scenario: the namenode is killed in the middle of a run by RPC, and returns.
/// Guarantees: the run goes on and completes by itself, with every row.
#[test]
fn hdfs_namenode_goes_away_and_returns_by_rpc() -> anyhow::Result<()> {
    outage("hdfs-namenode-native", Way::Native, Daemon::NameNode)
}

/// Scenario: the namenode is killed in the middle of a run by WebHDFS, and returns.
/// Guarantees: the run goes on and completes by itself, with every row.
#[test]
fn hdfs_namenode_goes_away_and_returns_by_web() -> anyhow::Result<()> {
    outage("hdfs-namenode-web", Way::Web, Daemon::NameNode)
}

/// Scenario: the only datanode is killed in the middle of a run by RPC, and returns.
/// Guarantees: the run goes on and completes by itself, with every row.
#[test]
fn hdfs_datanode_goes_away_and_returns_by_rpc() -> anyhow::Result<()> {
    outage("hdfs-datanode-native", Way::Native, Daemon::DataNode)
}

/// Scenario: the only datanode is killed in the middle of a run by WebHDFS, and returns.
/// Guarantees: the run goes on and completes by itself, with every row.
#[test]
fn hdfs_datanode_goes_away_and_returns_by_web() -> anyhow::Result<()> {
    outage("hdfs-datanode-web", Way::Web, Daemon::DataNode)
}

/// The active namenode of a name service dies in the middle; after a while the other one takes over.
fn fail_over(name: &str, way: Way) -> anyhow::Result<()> {
    let (kafka, mut pair) = (kafka()?, HdfsPair::start()?);
    let result = scenario(name, |workspace| {
        let records = Records { seed: 23, topic: unique(name) };
        kafka.create_topic(&records.topic, PARTITIONS)?;
        let group = unique("group");
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let sink = match way {
            Way::Native => {
                let conf = format!("  hadoop_conf_dir: {}\n", pair.conf_dir().display());
                hdfs_sink(&pair.native_url(), "/lake", &superuser()) + &conf
            }
            Way::Web => hdfs_sink(&pair.web_url(), "/lake", &superuser()),
        };
        let configuration = Configuration::new(name, source, sink + PARTITION_BY).with_records_schema_and_plugins();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        let feed = Feed::start(kafka, &records, 0, RATE)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        process.wait_for_text("generation committed", SHORT)?;
        pair.fail_over(Duration::from_secs(5))?;
        process.ensure_running().context("while there was no namenode")?;
        let count = feed.finish()?;
        ensure_all_there(kafka, &records, count)?;
        kafka.wait_until_committed(&group, &records.topic, LONG).with_context(|| process.log_tail())?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        let seen = Lake::HdfsAt(&pair.second_web_url(), "/lake").read(
            Reader::PyArrow,
            &["country", "level"],
            workspace.path(),
        )?;
        seen.compare(&Expected::of_records(&records, count))?.expect_exact()?;
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])
    });
    result.map_err(|error| error.context(format!("HDFS's logs: {}", pair.keep_log())))
}

/// Scenario: the active namenode of a name service dies, and the other one becomes active 5 s later, by RPC.
/// Guarantees: the run goes on by itself, with every row exactly once; the ledger agrees with the store.
#[test]
fn hdfs_fails_over_to_the_other_namenode_by_rpc() -> anyhow::Result<()> {
    fail_over("hdfs-pair-native", Way::Native)
}

/// Scenario: the same by WebHDFS.
/// Guarantees: the same.
#[test]
fn hdfs_fails_over_to_the_other_namenode_by_web() -> anyhow::Result<()> {
    fail_over("hdfs-pair-web", Way::Web)
}

/// A file of three parts is written; the only datanode is killed after the first, and returns while the second waits.
fn interrupted_file(name: &str, way: Way) -> anyhow::Result<()> {
    let hdfs = Hdfs::start()?;
    with_cluster(name, &hdfs, |_| {
        let store = hdfs.store(way, "lake", &superuser())?;
        let part = |number: u8| Bytes::from(vec![number; 9 << 20]);
        let told = |error: fs_data_sink::error::PipelineError| anyhow::anyhow!(error.full_message());
        let mut writer = store.stage(ObjectPath::from("orders/large.parquet"));
        runtime()?.block_on(writer.write(part(1))).map_err(told)?;
        // The part is on its way; wait until the cluster has it.
        wait::until("the first part", SHORT, || {
            let there: u64 = hdfs.list("lake")?.iter().map(|(_, length)| *length).sum();
            Ok(Look::when(there >= 9 << 20, format!("{there} bytes")))
        })?;
        hdfs.kill(Daemon::DataNode)?;
        let staged = thread::scope(|scope| {
            let returned = scope.spawn(|| {
                thread::sleep(Duration::from_secs(3));
                hdfs.launch(Daemon::DataNode)
            });
            let staged = runtime()?.block_on(async {
                writer.write(part(2)).await?;
                writer.write(part(3)).await?;
                writer.finish().await
            });
            returned.join().ok().context("the thread panicked")??;
            staged.map_err(told)
        })?;
        runtime()?.block_on(store.publish(&staged)).map_err(told)?;
        let there = hdfs.read("/lake/orders/large.parquet")?;
        let wanted: Vec<u8> = [1, 2, 3].into_iter().flat_map(|number| part(number).to_vec()).collect();
        ensure!(there == wanted, "{} bytes came back of {}, or others", there.len(), wanted.len());
        Ok(())
    })
}

/// Scenario: the datanode dies in the middle of a large file that is written by RPC, and returns.
/// Guarantees: the file is whole, with no byte lost or doubled.
#[test]
fn hdfs_datanode_dies_in_the_middle_of_a_file_by_rpc() -> anyhow::Result<()> {
    interrupted_file("hdfs-interrupted-native", Way::Native)
}

/// Scenario: the datanode dies in the middle of a large file that is written by WebHDFS, and returns.
/// Guarantees: the file is whole, with no byte lost or doubled.
#[test]
fn hdfs_datanode_dies_in_the_middle_of_a_file_by_web() -> anyhow::Result<()> {
    interrupted_file("hdfs-interrupted-web", Way::Web)
}

/// Scenario: a cluster with Kerberos, encryption and HTTPS, by RPC with a ticket and by WebHDFS with a delegation token; then
/// without a ticket, with a wrong token, and without the authority that signed the certificate.
/// Guarantees: every row arrives exactly once both ways; each of the three is refused in words that name what to look at, and the
/// token is in none of them.
#[test]
fn hdfs_with_kerberos_and_https() -> anyhow::Result<()> {
    let (kafka, mut hdfs) = (kafka()?, HdfsSecure::start()?);
    let result = scenario("hdfs-secure", |workspace| {
        let records = filled_topic(kafka, "hdfs-secure", 24, RECORDS)?;
        let [(config, its_path), of_ticket @ ..] = hdfs.kerberos();
        workspace.set(config, &its_path);
        let conf = format!("  hadoop_conf_dir: {}\n", hdfs.conf_dir().display());
        let native = format!("  type: hdfs\n  url: {}\n  base_path: /native\n{conf}", hdfs.native_url());
        let trust = format!("  ca_file: {}\n", hdfs.ca_file().display());
        let web = |token: &str, more: &str| {
            format!("  type: hdfs\n  url: {}\n  base_path: /web\n  delegation_token: {token}\n{more}", hdfs.web_url())
        };
        workspace.set("KRB5CCNAME", "FILE:/nowhere");
        refused_in(workspace, &native, &["Kerberos ticket (kinit)", "hadoop_conf_dir"])?;
        for (name, value) in of_ticket {
            workspace.set(name, &value);
        }
        refused_in(workspace, &web("JAAEcm9vdA", &trust), &["sink.delegation_token"])?;
        refused_in(workspace, &web(hdfs.token(), ""), &["sink.ca_file", "certificate"])?;
        for (folder, sink) in [("/native", native), ("/web", web(hdfs.token(), &trust))] {
            let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
            let configuration =
                Configuration::new("secure", source, sink + PARTITION_BY).with_records_schema_and_plugins();
            workspace.write("pipeline.yaml", configuration.yaml())?;
            workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
            let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?;
            finished.expect(0, &[])?;
            ensure!(!finished.output.contains(hdfs.token()), "the token was said");
            let seen =
                Lake::HdfsSecure(&hdfs, folder).read(Reader::PyArrow, &["country", "level"], workspace.path())?;
            seen.compare(&Expected::of_records(&records, RECORDS))?.expect_exact()?;
            workspace
                .run(&["ledger", "verify", "pipeline.yaml"], SHORT)?
                .expect(0, &["the store is as the ledger says"])?;
        }
        Ok(())
    });
    result.map_err(|error| error.context(format!("HDFS's logs: {}", hdfs.keep_log())))
}

/// What `validate --connect` says of a sink that cannot be used.
fn refused(name: &str, sink: &str, words: &[&str]) -> anyhow::Result<()> {
    scenario(name, |workspace| refused_in(workspace, sink, words))
}

/// The same in a workspace that is there.
fn refused_in(workspace: &Workspace, sink: &str, words: &[&str]) -> anyhow::Result<()> {
    let source = "  type: file\n  paths: [pipeline.yaml]\n".to_owned();
    workspace.write("pipeline.yaml", Configuration::new("wrong", source, sink.to_owned()).yaml())?;
    let finished = workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?;
    finished.expect(1, words)?;
    ensure!(!finished.output.contains("op="), "an address was said: {}", finished.output);
    Ok(())
}

/// Scenario: nobody listens where the namenode should, its name is unknown, or the port is the other protocol's.
/// Guarantees: the key and what to do are said, within a bounded time.
#[test]
fn hdfs_that_cannot_be_reached_is_told() -> anyhow::Result<()> {
    let port = free_port()?;
    for scheme in ["hdfs", "http"] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        refused("hdfs-unreachable", &hdfs_sink(&url, "/lake", "etl"), &["sink.url", "nobody answers", &url])?;
        let url = format!("{scheme}://no-such-host.invalid:{port}");
        refused("hdfs-unknown-host", &hdfs_sink(&url, "/lake", "etl"), &["sink.url", "unknown to this machine"])?;
    }
    let hdfs = hdfs()?;
    let rpc_as_web = hdfs.url(Way::Native).replace("hdfs://", "http://");
    refused("hdfs-rpc-port", &hdfs_sink(&rpc_as_web, "/lake", "etl"), &["sink.url", "RPC port"])?;
    let web_as_rpc = hdfs.url(Way::Web).replace("http://", "hdfs://");
    refused("hdfs-web-port", &hdfs_sink(&web_as_rpc, "/lake", "etl"), &[&web_as_rpc, "sink.url"])
}

/// Scenario: the folder belongs to somebody else.
/// Guarantees: it is said that rights are lacking, with the keys that help, both ways; the run stops as well.
#[test]
fn hdfs_without_permission_is_told() -> anyhow::Result<()> {
    let hdfs = hdfs()?;
    hdfs.make_folder("/private", "700")?;
    for way in [Way::Native, Way::Web] {
        let sink = hdfs_sink(&hdfs.url(way), "/private/lake", "stranger");
        refused("hdfs-permission", &sink, &["permission denied", "sink.user", "sink.base_path"])?;
    }
    Ok(())
}
