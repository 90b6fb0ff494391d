//! Buckets of plugins in each way in which Redis is run: the settings are those of a source.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Lake, Reader},
    program::{Configuration, Workspace, end, local_sink, plugin},
    services::{
        process::Signal,
        redis::{Cluster, PASSWORD, SecureRedis, Watched},
    },
    wait::{self, Look},
};
use redis::ConnectionLike;
use serde_json::{Value, json};

use super::{Feed, redis, servers::weight};
use crate::shared::{LONG, SHORT, scenario, unique};

/// What config/full.yaml says that a user of a bucket needs who reads.
const RULES: &str = "~shop:* +ping +hello +client +select +getrange +exists";
/// Customers in a bucket.
const CUSTOMERS: u64 = 100;

/// Row `id` before it is looked up.
fn row(id: u64) -> String {
    json!({"id": id, "customer": id % CUSTOMERS}).to_string()
}

/// What a bucket has for a customer.
fn customer(number: u64) -> String {
    json!({"name": format!("größe {number}")}).to_string()
}

/// Fills a bucket of the tenant `shop`.
fn fill(link: &mut impl ConnectionLike) -> anyhow::Result<()> {
    for number in 0..CUSTOMERS {
        redis::cmd("SET").arg(format!("shop:customers:{number}")).arg(customer(number)).exec(link)?;
    }
    Ok(())
}

/// A pipeline of the tenant `shop` whose plugin looks each row's customer up in a bucket.
fn configure(workspace: &Workspace, source: &str, bucket: &str) -> anyhow::Result<()> {
    let lake = workspace.path().join("lake");
    let mut configuration = Configuration::new("enriched\ntenant: shop", source.to_owned(), local_sink(&lake));
    configuration.schema =
        "schema:\n  mode: declared\n  fields: [{name: id, type: int64}, {name: customer, type: int64}]\n".into();
    configuration.pipeline = "  commit_interval: 200ms\n".into();
    configuration.plugins = format!(
        "plugins:
  - name: lookup
    path: {}
    config: {{column: customer, bucket: customers, fields: [{{name: name}}]}}
    limits: {{call_timeout: 20s}}
    grants:
      keyvalue: [{{bucket: customers, timeout: 3s, redis: {{{bucket}}}}}]
",
        plugin("enrich_lookup").display()
    );
    workspace.write("pipeline.yaml", configuration.yaml())?;
    Ok(())
}

/// The names in the lake, by the row's id; each row is there once.
fn names(workspace: &Workspace) -> anyhow::Result<BTreeMap<u64, Option<String>>> {
    let lake = workspace.path().join("lake");
    let rows = Lake::Local(&lake).read(Reader::PyArrow, &[], workspace.path())?.rows;
    let mut names = BTreeMap::new();
    for line in std::fs::read_to_string(rows)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        let id = row.get("id").and_then(Value::as_u64).context("no id")?;
        let name = row.get("name").and_then(Value::as_str).map(str::to_owned);
        ensure!(names.insert(id, name).is_none(), "row {id} is there twice");
    }
    Ok(names)
}

/// The rows that the plugin could not look up.
fn letters(workspace: &Workspace) -> anyhow::Result<Vec<u64>> {
    let lake = workspace.path().join("lake");
    let letters = Lake::Local(&lake).dead_letters("enriched")?;
    let id = |value: Vec<u8>| serde_json::from_slice::<Value>(&value).ok()?.get("id")?.as_u64();
    letters.into_iter().map(|letter| letter.value.and_then(id).context("no id")).collect()
}

/// Rows have their customer's name.
fn ensure_right(names: &BTreeMap<u64, Option<String>>) -> anyhow::Result<()> {
    for (id, name) in names {
        ensure!(*name == Some(format!("größe {}", id % CUSTOMERS)), "row {id} has the name {name:?}");
    }
    Ok(())
}

/// `source` for the file `in.ndjson`, with so many rows.
fn file(workspace: &Workspace, rows: u64) -> anyhow::Result<String> {
    workspace.write("in.ndjson", (0..rows).map(|id| row(id) + "\n").collect::<String>())?;
    Ok("  type: file\n  paths: [in.ndjson]\n".to_owned())
}

/// `source` for a stream of the shared server, with its name.
fn stream() -> anyhow::Result<(String, String)> {
    let stream = unique("looked-up");
    Ok((redis()?.source() + &format!("  stream_keys: [{stream}]\n"), stream))
}

/// Rows that keep coming to a stream.
fn feed(stream: &str, from: u64) -> anyhow::Result<Feed> {
    let (mut link, stream) = (redis()?.connection()?, stream.to_owned());
    Ok(Feed::start(from, 300, move |rows| {
        for id in rows {
            redis::cmd("XADD").arg(&stream).arg("*").arg("value").arg(row(id)).exec(&mut link)?;
        }
        Ok(())
    }))
}

/// Scenario: a bucket in a server that speaks TLS only and wants certificates, by a user who may read keys under the tenant's prefix and
/// nothing else. Then with another authority, without our certificate, with another password, and with a user who may not read.
/// Guarantees: every row is looked up; where the server cannot be asked the rows become dead letters, and the log says why, with
/// tenant and plugin and without the password; the plugin hears nothing of it.
#[test]
fn a_bucket_by_tls_and_access_control() -> anyhow::Result<()> {
    scenario("bucket-tls", |workspace| {
        let secure = SecureRedis::start(RULES)?;
        let mut input = String::new();
        for number in 0..CUSTOMERS {
            let value = customer(number).replace('"', "\\\"");
            writeln!(input, "SET shop:customers:{number} \"{value}\"")?;
        }
        secure.cli(&[], &input)?;
        secure.cli(&["ACL", "SETUSER", "blind", "on", &format!(">{PASSWORD}"), "~other", "+@all"], "")?;
        let files = secure.folder().display();
        let own = format!("cert_file: {files}/client.crt, key_file: {files}/client.key");
        let bucket = |user: &str, password: &str, tls: &str| {
            format!("host: localhost, port: {}, username: {user}, password: {password}, tls: {{{tls}}}", secure.port())
        };
        let trusted = format!("ca_file: {files}/ca.crt, {own}");
        let source = file(workspace, 1_000)?;
        configure(workspace, &source, &bucket("lake", PASSWORD, &trusted))?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], SHORT)?.expect(0, &[])?;
        let found = names(workspace)?;
        ensure_right(&found)?;
        ensure!(found.len() == 1_000 && letters(workspace)?.is_empty(), "{} rows", found.len());
        let no_trust = format!("ca_file: {files}/client.crt, {own}");
        let nobody = format!("ca_file: {files}/ca.crt");
        for (bucket, words) in [
            (bucket("lake", PASSWORD, &no_trust), "UnknownIssuer"),
            (bucket("lake", PASSWORD, &nobody), "CertificateRequired"),
            (bucket("lake", "falsch-0815", &trusted), "Password authentication failed"),
            (bucket("blind", PASSWORD, &trusted), "NoPerm"),
        ] {
            std::fs::remove_dir_all(workspace.path().join("lake"))?;
            configure(workspace, &source, &bucket)?;
            let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], SHORT)?;
            finished.expect(0, &[])?;
            let output = &finished.output;
            let asked =
                format!("what the plugin asked for failed: bucket customers: Redis localhost:{}", secure.port());
            let parts = [&asked, words, "plugin=\"lookup\"", "tenant=\"shop\"", "grant=\"keyvalue\""];
            let is_told = |line: &str| parts.iter().all(|part| line.contains(part));
            ensure!(output.lines().any(is_told), "no line has {parts:?}:\n{output}");
            ensure!(!output.contains(PASSWORD) && !output.contains("falsch-0815"), "a password was told:\n{output}");
            let lake = workspace.path().join("lake");
            let letters = Lake::Local(&lake).dead_letters("enriched")?;
            ensure!(letters.len() == 1_000, "{} dead letters", letters.len());
            let message = letters.first().and_then(|letter| letter.line.get("message")).and_then(Value::as_str);
            let heard = "the store behind the bucket does not answer as it should";
            ensure!(
                message.is_some_and(|message| message.contains(heard) && !message.contains("localhost")),
                "{message:?}"
            );
        }
        Ok(())
    })
}

/// Scenario: a bucket in a server that Sentinels watch; the master is killed while rows keep coming.
/// Guarantees: rows are looked up in the new master without a restart; those that could not be meanwhile are dead letters, if there
/// are any, and none is lost or twice there.
#[test]
fn a_bucket_survives_a_failover_by_sentinels() -> anyhow::Result<()> {
    scenario("bucket-sentinel", |workspace| {
        let watched = Watched::start()?;
        fill(&mut watched.connection()?)?;
        let (source, stream) = stream()?;
        configure(workspace, &source, &format!("sentinel: {}, password: {PASSWORD}", watched.sentinel()))?;
        let before = feed(&stream, 0)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait::until("the first rows", SHORT, || {
            process.ensure_running()?;
            Ok(Look::when(names(workspace).is_ok_and(|names| !names.is_empty()), "none"))
        })?;
        watched.fail_over()?;
        let first = before.finish()?;
        wait::until("what was asked meanwhile", SHORT, || Ok(wait_for(workspace, first)))?;
        let after = feed(&stream, first)?;
        std::thread::sleep(Duration::from_secs(2));
        let count = after.finish()?;
        wait::until("all rows", SHORT, || {
            process.ensure_running()?;
            Ok(wait_for(workspace, count))
        })?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        let (found, refused) = (names(workspace)?, letters(workspace)?);
        ensure_right(&found)?;
        let late: Vec<_> = refused.iter().filter(|id| **id >= first || found.contains_key(id)).collect();
        ensure!(late.is_empty(), "not looked up after the failover, or twice: {late:?}");
        Ok(())
    })
}

/// Whether so many rows are there, as rows or as dead letters.
fn wait_for(workspace: &Workspace, count: u64) -> Look<()> {
    let found = names(workspace).map_or(0, |names| names.len()) + letters(workspace).map_or(0, |letters| letters.len());
    Look::when(found as u64 >= count, format!("{found} of {count} rows"))
}

/// Scenario: a bucket in a cluster of three nodes, of which slots move while rows keep coming; then a plugin that writes, reads, deletes
/// and lists there.
/// Guarantees: every row is looked up; writing reaches every node; that keys of a cluster cannot be listed is told in words.
#[test]
fn a_bucket_in_a_cluster() -> anyhow::Result<()> {
    scenario("bucket-cluster", |workspace| {
        let cluster = Cluster::start()?;
        fill(&mut cluster.connection()?)?;
        let addresses = cluster.addresses();
        let first = addresses.first().cloned().unwrap_or_default();
        let bucket = format!("cluster: true, nodes: [\"{first}\"], password: {PASSWORD}");
        let (source, stream) = stream()?;
        configure(workspace, &source, &bucket)?;
        let feed = feed(&stream, 0)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        process.wait_for_text("generation committed", SHORT)?;
        let weight = weight(&cluster)?;
        cluster.cli(&["--cluster", "rebalance", &first, "--cluster-weight", &weight, "--cluster-threshold", "1"])?;
        std::thread::sleep(Duration::from_secs(1));
        let count = feed.finish()?;
        wait::until("all rows", LONG, || {
            process.ensure_running()?;
            Ok(wait_for(workspace, count))
        })?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        let found = names(workspace)?;
        ensure_right(&found)?;
        ensure!(found.len() as u64 == count && letters(workspace)?.is_empty(), "{} of {count} rows", found.len());
        write_and_list(workspace, &bucket)?;
        let told: Option<String> = redis::cmd("GET").arg("shop:notes:a").query(&mut cluster.connection()?)?;
        ensure!(told.as_deref() == Some("1"), "{told:?}");
        cluster.ensure_running()
    })
}

/// A plugin that writes to a bucket and lists it.
fn write_and_list(workspace: &Workspace, bucket: &str) -> anyhow::Result<()> {
    let ask = |op: &str, key: &str| json!({"keyvalue": {"bucket": "notes", "op": op, "key": key, "value": "1"}});
    let steps = ["a", "b", "c"].map(|key| ask("set", key)).into_iter();
    let steps: Vec<_> = steps.chain([ask("get", "b"), ask("delete", "b"), ask("get", "b"), ask("list", "")]).collect();
    let lake = workspace.path().join("notes");
    let source = file(workspace, 1)?;
    let mut configuration = Configuration::new("notes\ntenant: shop", source, local_sink(&lake));
    configuration.plugins = format!(
        "plugins:
  - path: {}
    config: {}
    grants:
      http: [{{host: nobody.example}}]
      keyvalue: [{{bucket: notes, access: read_write, timeout: 3s, redis: {{{bucket}}}}}]
",
        plugin("hostile_lookup").display(),
        json!({"do": steps})
    );
    workspace.write("notes.yaml", configuration.yaml())?;
    workspace.run(&["run", "notes.yaml", "--until-end"], SHORT)?.expect(0, &[])?;
    let letters = Lake::Local(&lake).dead_letters("notes")?;
    let message = letters.first().and_then(|letter| letter.line.get("message")).and_then(Value::as_str);
    let told: Vec<_> = message.unwrap_or_default().split('\n').collect();
    let wanted = ["set", "set", "set", "1", "deleted", "none", "keys of a cluster cannot be listed"];
    ensure!(told == wanted, "{told:?}");
    Ok(())
}
