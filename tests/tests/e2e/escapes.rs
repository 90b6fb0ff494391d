//! A tenant's plugins try to get at what they were not granted, by every way that a grant leaves open; a neighbour works beside them.
//!
//! It all happens in a network of its own (`services::network`), so that there is a public server, private ones that must never
//! hear of anybody, and a name server whose answers change.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    http,
    lake::{Lake, Reader},
    program::{Configuration, Workspace, end, local_sink, plugin},
    services::{
        dns::{Answer, NameServer},
        free_port,
        misbehaving::{Manner, Server},
        network,
        process::Signal,
        redis::{PASSWORD, Redis, add_entries},
    },
    wait::{self, Look},
};
use serde_json::{Value, json};

use crate::{
    reload::sha256,
    shared::{LONG, SHORT, say, scenario},
};

mod attempts;

use attempts::{Attempt, by_bad_answers, in_buckets, in_folders, to_other_servers};

/// This test, as the test program knows it.
const TEST: &str = "escapes::no_way_leads_out_of_what_was_granted";
/// What must be found nowhere.
const SECRET: &str = "streng-geheim-0815";
/// An address of the public internet, which is this machine here.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
/// Where clouds keep their secrets, and a machine of a private network.
const PRIVATE: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(10, 0, 0, 7)];
/// Rows of the neighbour.
const ROWS: u64 = 3_000;

/// A folder that is granted, beside one that is not, with links of every kind between them.
fn make_folders(root: &Path) -> anyhow::Result<()> {
    let (granted, secret) = (root.join("granted"), root.join("secret"));
    fs::create_dir_all(granted.join("sub"))?;
    fs::create_dir_all(&secret)?;
    fs::write(granted.join("plain.txt"), "harmless")?;
    fs::write(granted.join("swapped.txt"), "harmless")?;
    fs::write(secret.join("key.txt"), SECRET)?;
    let absolute = secret.join("key.txt").display().to_string();
    for (name, target) in [
        ("inside", "sub/../plain.txt"),
        ("nowhere", "missing.txt"),
        ("circle", "circle"),
        ("relative", "../secret/key.txt"),
        ("absolute", &absolute),
        ("to-parent", ".."),
        ("winding", "sub/../../secret"),
        ("proc", "/proc/self/root"),
        ("nowhere-outside", "../secret/missing.txt"),
    ] {
        symlink(target, granted.join(name))?;
    }
    let made = Command::new("mkfifo").arg(granted.join("pipe")).status()?;
    ensure!(made.success(), "no pipe can be made");
    Ok(())
}

/// Puts a link to the secret in the place of a file and the file back, all the time, until it is over.
fn swap(granted: &Path, is_over: &AtomicBool) -> anyhow::Result<()> {
    let (name, new) = (granted.join("swapped.txt"), granted.join("swapped.new"));
    while !is_over.load(Ordering::Relaxed) {
        symlink("../secret/key.txt", &new)?;
        fs::rename(&new, &name)?;
        thread::sleep(Duration::from_micros(200));
        fs::write(&new, "harmless")?;
        fs::rename(&new, &name)?;
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// The name server, and what is behind its names.
fn names() -> HashMap<String, Vec<Answer>> {
    let one = |address: IpAddr| vec![Answer::Addresses(vec![address])];
    let (public, inside): (IpAddr, IpAddr) = (PUBLIC.into(), Ipv4Addr::LOCALHOST.into());
    let names = [
        ("api", one(public)),
        ("inside", one(inside)),
        ("link", one(PRIVATE[0].into())),
        ("ten", one(PRIVATE[1].into())),
        ("six", one(Ipv6Addr::LOCALHOST.into())),
        ("mapped", one(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into())),
        ("mixed", vec![Answer::Addresses(vec![inside, PRIVATE[1].into(), public])]),
        ("turning", vec![Answer::Addresses(vec![public]), Answer::Addresses(vec![inside])]),
        ("silent", vec![Answer::Silence]),
        ("mute", vec![Answer::Silence]),
    ];
    names.into_iter().map(|(name, answers)| (format!("{name}.example"), answers)).collect()
}

/// The pipeline of an attempt.
fn attacker(workspace: &Workspace, attempt: &Attempt, redis: &Redis, port: u16) -> anyhow::Result<String> {
    let lake = workspace.path().join("lakes").join(attempt.name);
    let source = "  type: file\n  paths: [../in.ndjson]\n".to_owned();
    let mut configuration =
        Configuration::new(&format!("{}\ntenant: stranger", attempt.name), source, local_sink(&lake));
    configuration.schema = "schema:\n  mode: declared\n  fields: [{name: id, type: int64}]\n".into();
    configuration.telemetry.clear();
    let hosts = names()
        .keys()
        .map(|host| {
            let connect = if host == "mute.example" { "300ms" } else { "5s" };
            format!(
                "        - {{host: {host}, port: {port}, scheme: http, timeout: 1s, connect_timeout: {connect}, \
                 response_bytes: 10KiB}}\n"
            )
        })
        .collect::<Vec<_>>()
        .concat();
    configuration.plugins = format!(
        "plugins:
  - name: prying
    path: {path}
    sha256: {digest}
    config: {config}
    limits: {{call_timeout: 60s}}
    grants:
      http:
{hosts}      keyvalue:
        - bucket: own
          value_bytes: 1KiB
          keys_per_call: 10000
          redis: {{host: 127.0.0.1, port: {redis}, password: {PASSWORD}, prefix: \"stranger:own:\"}}
      files: [{{path: ../granted, as: /lookup}}]
",
        path = plugin("hostile_lookup").display(),
        digest = sha256(&plugin("hostile_lookup"))?,
        config = json!({"do": attempt.steps}),
        redis = redis.port(),
    );
    Ok(configuration.yaml().replace("telemetry:\n", ""))
}

/// The pipeline of the neighbour, which looks its rows up in the same Redis.
fn neighbour(workspace: &Workspace, redis: &Redis) -> String {
    let lake = workspace.path().join("lakes/neighbour");
    let source = redis.source() + "  stream_keys: [rows]\n";
    let mut configuration = Configuration::new("neighbour\ntenant: neighbour", source, local_sink(&lake));
    configuration.schema = "schema:\n  mode: declared\n  fields: [{name: id, type: int64}]\n".into();
    configuration.telemetry.clear();
    configuration.plugins = format!(
        "plugins:
  - path: {}
    config: {{column: id, bucket: customers, fields: [{{name: name}}]}}
    grants:
      keyvalue: [{{bucket: customers, redis: {{host: 127.0.0.1, port: {}, password: {PASSWORD}}}}}]
",
        plugin("enrich_lookup").display(),
        redis.port()
    );
    configuration.yaml().replace("telemetry:\n", "")
}

/// Fills the Redis of both.
fn fill(redis: &Redis) -> anyhow::Result<()> {
    let mut link = redis.connection()?;
    let set = |key: &str, value: &str, link: &mut redis::Connection| redis::cmd("SET").arg(key).arg(value).exec(link);
    set("neighbour:customers:secret", SECRET, &mut link)?;
    set("stranger:own:mine", "1", &mut link)?;
    for number in 0..ROWS {
        set(&format!("neighbour:customers:{number}"), &json!({"name": format!("n{number}")}).to_string(), &mut link)?;
    }
    add_entries(&mut link, (0..ROWS).map(|id| ("rows".to_owned(), vec![("value", json!({"id": id}).to_string())])))
}

/// Waits until the attempts are through and the neighbour has all its rows.
fn wait_for_all(
    workspace: &Workspace,
    attempts: &[Attempt],
    address: &str,
    process: &mut fs_data_sink_tests::services::process::Process,
) -> anyhow::Result<()> {
    let wanted: BTreeSet<String> =
        (0..ROWS).map(|id| json!({"id": id, "name": format!("n{id}")}).to_string()).collect();
    wait::until("all attempts and all rows of the neighbour", LONG, || {
        process.ensure_running()?;
        let page = http::get(address, "/healthz").map(|(_, page)| page).unwrap_or_default();
        if let Some(attempt) = attempts.iter().find(|attempt| !page.contains(&format!("{}: stopped", attempt.name))) {
            return Ok(Look::NotYet(format!("{}\n{page}", attempt.name)));
        }
        let lake = workspace.path().join("lakes/neighbour");
        let Ok(seen) = Lake::Local(&lake).read(Reader::PyArrow, &[], workspace.path()) else {
            return Ok(Look::NotYet("no rows".to_owned()));
        };
        let rows = fs::read_to_string(seen.rows)?;
        let same: BTreeSet<String> = rows.lines().map(str::to_owned).collect();
        let is_all = same == wanted && rows.lines().count() as u64 == ROWS;
        Ok(Look::when(is_all, format!("{} rows, such as {:?}", same.len(), same.first())))
    })
    .with_context(|| process.log_tail())
}

/// An attempt was refused: it heard what it must, the log tells of it, and it is counted.
fn check(workspace: &Workspace, attempt: &Attempt, log: &str, metrics: &str) -> anyhow::Result<()> {
    let lake = workspace.path().join("lakes").join(attempt.name);
    let letters = Lake::Local(&lake).dead_letters(attempt.name)?;
    let message = letters.first().and_then(|letter| letter.line.get("message")).and_then(Value::as_str);
    let told: Vec<&str> = message.context("no dead letter")?.split('\n').collect();
    ensure!(told == attempt.told, "told {told:?}, not {:?}", attempt.told);
    let digest = sha256(&plugin("hostile_lookup"))?;
    for (grant, reason, words) in &attempt.refusals {
        let name = format!("pipeline=\"{}\"", attempt.name);
        let (of_grant, of_reason) = (format!("grant=\"{grant}\""), format!("reason=\"{reason}\""));
        let digest = format!("sha256=\"{digest}\"");
        let wanted = [words, "plugin=\"prying\"", "tenant=\"stranger\"", &name, &digest, &of_grant, &of_reason];
        let is_told = |line: &str| wanted.iter().all(|part| line.contains(part));
        ensure!(log.lines().any(is_told), "no line of the log has {wanted:?}");
        let is_counted = |line: &str| {
            line.starts_with("fs_data_sink_plugin_refusals_total{")
                && wanted.iter().filter(|part| **part != words && **part != digest).all(|part| line.contains(part))
        };
        ensure!(metrics.lines().any(is_counted), "{reason} is not counted:\n{metrics}");
    }
    let mut lines = log.lines().filter(|line| line.contains("the plugin was refused"));
    let of_this = format!("pipeline=\"{}\"", attempt.name);
    ensure!(
        !attempt.refusals.is_empty() || !lines.any(|line| line.contains(&of_this)),
        "what is allowed was told as a refusal"
    );
    Ok(())
}

/// The secret is in no file that the program has written.
fn ensure_kept(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            ensure_kept(&path)?;
        } else {
            let bytes = fs::read(&path)?;
            let is_told = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
            ensure!(!is_told, "the secret is in {}", path.display());
        }
    }
    Ok(())
}

/// The scenario, within the network.
fn attack(workspace: &Workspace) -> anyhow::Result<()> {
    let (port, telemetry) = (free_port()?, format!("127.0.0.1:{}", free_port()?));
    let public = Server::start(SocketAddr::new(PUBLIC.into(), port), Manner::Badly)?;
    let private: Vec<IpAddr> = [Ipv4Addr::LOCALHOST, PRIVATE[0], PRIVATE[1]]
        .map(IpAddr::from)
        .into_iter()
        .chain([Ipv6Addr::LOCALHOST.into()])
        .collect();
    let private =
        private.into_iter().map(|address| Server::start(SocketAddr::new(address, port), Manner::Says(SECRET.into())));
    let private = private.collect::<anyhow::Result<Vec<_>>>()?;
    let name_server = NameServer::start(network::NAME_SERVER, names())?;
    let redis = Redis::start(&[])?;
    fill(&redis)?;
    redis::cmd("SET").arg("stranger:own:long").arg("x".repeat(2_000)).exec(&mut redis.connection()?)?;
    make_folders(workspace.path())?;
    workspace.write("in.ndjson", "{\"id\": 1}\n{\"id\": 2}\n")?;
    let attempts: Vec<Attempt> =
        [to_other_servers(port), by_bad_answers(port), in_buckets(), in_folders()].into_iter().flatten().collect();
    for attempt in &attempts {
        workspace.write(&format!("conf/{}.yaml", attempt.name), attacker(workspace, attempt, &redis, port)?)?;
    }
    workspace.write("conf/neighbour.yaml", neighbour(workspace, &redis))?;
    let all = format!(
        "tenants: {{stranger: {{untrusted: true}}, neighbour: {{}}}}\ntelemetry: {{log_format: text, listen: \"{telemetry}\"}}\n"
    );
    workspace.write("conf/all.yaml", all)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let swapping = thread::spawn({
        let (granted, is_over) = (workspace.path().join("granted"), Arc::clone(&is_over));
        move || swap(&granted, &is_over)
    });
    let mut process = workspace.start(&["run", "conf"])?;
    let waited = wait_for_all(workspace, &attempts, &telemetry, &mut process);
    is_over.store(true, Ordering::Relaxed);
    swapping.join().ok().context("the thread that swaps panicked")??;
    waited?;
    let (_, metrics) = http::get(&telemetry, "/metrics")?;
    let finished = end(process, Signal::Terminate, SHORT)?;
    finished.expect(0, &[])?;
    for attempt in &attempts {
        check(workspace, attempt, &finished.output, &metrics).with_context(|| attempt.name)?;
    }
    ensure!(public.connections() > 0 && name_server.asked("turning.example") >= 4, "the servers were not asked");
    let heard: Vec<_> = private.iter().map(Server::connections).collect();
    ensure!(heard == [0, 0, 0, 0], "connections to private addresses: {heard:?}");
    ensure!(!metrics.contains(SECRET) && !finished.output.contains(SECRET), "the secret was told");
    ensure_kept(&workspace.path().join("lakes"))?;
    Ok(())
}

/// Scenario: an untrusted tenant with plugins that were granted a public server, a bucket in a Redis and a folder, and try to get
/// from there to a private server (redirects, other ways to write an address, names that lead inside, a name whose answer
/// changes from look-up to look-up), to swamp the host (answers without end, heads without end, no answer at all, keys of 1 MB),
/// to read other tenants' keys, and to leave the folder (`..`, links of every kind, a file that is swapped for a link while it is
/// read). Beside it a tenant who has the secret in the same Redis and works.
/// Guarantees: each try ends in a refusal, which the plugin hears, the log tells with tenant, pipeline, plugin and digest, and a metric
/// counts; no private server sees a connection; the secret is nowhere in the lake, the log and the metrics; the
/// neighbour has each of its rows once.
#[test]
fn no_way_leads_out_of_what_was_granted() -> anyhow::Result<()> {
    if !network::is_inside() {
        if let Some(why) = network::is_missing() {
            say(&format!(
                "SKIPPED: no network of its own can be made here ({why}), so no way out of a grant was tried"
            ));
            return Ok(());
        }
        return network::run_inside(TEST, &[&[PUBLIC][..], &PRIVATE].concat(), LONG + SHORT);
    }
    scenario("escapes", |workspace| attack(workspace))
}
