//! A Kafka that lets in only whom it knows.

use std::{fs, ops::Range, path::Path};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::Lake,
    program::{Configuration, Workspace, end, local_sink},
    services::{
        kafka_secure::{KafkaSecure, Listener, PASSWORD, USER},
        process::Signal,
    },
};

use crate::{
    shared::{LONG, SHORT, scenario, unique},
    topics::{compare, record},
};

/// Properties of librdkafka.
type Properties<'a> = &'a [(&'a str, &'a str)];

/// Writes `pipeline.yaml`, from a listener into the folder `lake`; the group.
fn configure(
    workspace: &Workspace,
    kafka: &KafkaSecure,
    listener: Listener,
    topic: &str,
    properties: Properties<'_>,
) -> anyhow::Result<String> {
    let group = unique("group");
    // `localhost` may also be an address of IPv6, where nobody listens.
    let always = [("broker.address.family", "v4"), ("session.timeout.ms", "3000")];
    let extra: Vec<_> =
        always.iter().chain(properties).map(|(name, value)| format!("    {name}: \"{value}\"\n")).collect();
    let source = format!(
        "  type: kafka\n  bootstrap_servers: [\"{}\"]\n  topics: [{topic}]\n  group_id: {}\n  extra_config:\n{}",
        kafka.bootstrap(listener),
        group,
        extra.concat()
    );
    let sink = local_sink(&workspace.path().join("lake"));
    // One lane, so that a member that waits in vain for the broker's goodbye is not another one's.
    let pipeline = "  commit_interval: 1s\n  lanes: 1\n".to_owned();
    workspace
        .write("pipeline.yaml", Configuration { pipeline, ..Configuration::new("secure", source, sink) }.yaml())?;
    Ok(group)
}

/// A scenario with a broker of its own and a topic on it; the broker's log stays when it fails.
fn with_broker(
    name: &str,
    body: impl FnOnce(&mut Workspace, &KafkaSecure, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (kafka, topic) = (KafkaSecure::start()?, unique(name));
    kafka.kafka.create_topic(&topic, 1)?;
    scenario(name, |workspace| body(workspace, &kafka, &topic))
        .map_err(|error| error.context(format!("Kafka's log: {}", kafka.kafka.keep_log())))
}

/// Sends records with these ids.
fn produce(kafka: &KafkaSecure, topic: &str, ids: Range<u64>) -> anyhow::Result<()> {
    kafka.kafka.produce(topic, ids.map(|id| record(id, 0))).map(drop)
}

/// A path as a property.
fn at(path: &Path) -> String {
    path.display().to_string()
}

/// Scenario: SASL with SCRAM-SHA-256, SCRAM-SHA-512 and PLAIN, TLS, and TLS with a client's certificate.
/// Guarantees: every row arrives each way, and no password is said.
#[test]
fn kafka_lets_in_whom_it_knows() -> anyhow::Result<()> {
    with_broker("secure", |workspace, kafka, topic| {
        produce(kafka, topic, 0..2_000)?;
        let (ca, certificate, key) = (at(&kafka.file("authority.crt")), kafka.file("good.crt"), kafka.file("good.key"));
        let (certificate, key) = (at(&certificate), at(&key));
        let sasl = [("security.protocol", "SASL_PLAINTEXT"), ("sasl.username", USER), ("sasl.password", PASSWORD)];
        let tls = [("security.protocol", "SSL"), ("ssl.ca.location", ca.as_str())];
        let own = [("ssl.certificate.location", certificate.as_str()), ("ssl.key.location", key.as_str())];
        let ways = [
            (Listener::Sasl, [&sasl[..], &[("sasl.mechanism", "SCRAM-SHA-256")]].concat()),
            (Listener::Sasl, [&sasl[..], &[("sasl.mechanism", "SCRAM-SHA-512")]].concat()),
            (Listener::Sasl, [&sasl[..], &[("sasl.mechanism", "PLAIN")]].concat()),
            (Listener::Tls, tls.to_vec()),
            (Listener::MutualTls, [&tls[..], &own].concat()),
        ];
        for (listener, properties) in ways {
            configure(workspace, kafka, listener, topic, &properties)?;
            let said = workspace.run(&["validate", "--connect", "--print", "pipeline.yaml"], SHORT)?;
            said.expect(0, &[])?;
            let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?;
            finished.expect(0, &[]).with_context(|| format!("{listener:?} {properties:?}"))?;
            ensure!(!said.output.contains(PASSWORD) && !finished.output.contains(PASSWORD), "the password was said");
            compare(workspace, &(0..2_000).collect())?;
            fs::remove_dir_all(workspace.path().join("lake"))?;
        }
        Ok(())
    })
}

/// Scenario: a wrong password, an unknown authority, a client's certificate that has expired, is of a stranger, or is missing; and
/// the protocol of another listener.
/// Guarantees: `validate --connect` and `run` end with 1, bounded in time, and name the cause and the key; nothing is written.
#[test]
fn kafka_that_refuses_is_told_in_words() -> anyhow::Result<()> {
    with_broker("secure-refused", |workspace, kafka, topic| {
        let file = |name: &str| at(&kafka.file(name));
        let scram = |password| {
            [
                ("security.protocol", "SASL_PLAINTEXT".to_owned()),
                ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
                ("sasl.username", USER.to_owned()),
                ("sasl.password", password),
            ]
            .to_vec()
        };
        let tls = |ca: &str, own: Option<&str>| {
            let mut properties = vec![("security.protocol", "SSL".to_owned()), ("ssl.ca.location", file(ca))];
            if let Some(own) = own {
                properties.push(("ssl.certificate.location", file(&format!("{own}.crt"))));
                properties.push(("ssl.key.location", file(&format!("{own}.key"))));
            }
            properties
        };
        let theirs = ["ssl.ca.location", "cannot be trusted"];
        let ours = ["ssl.certificate.location", "refuses the client's certificate"];
        let cases = [
            (
                "a wrong password",
                Listener::Sasl,
                scram("wr0ng-s3cr3t".to_owned()),
                ["the user or the password", "sasl."],
            ),
            ("an unknown authority", Listener::Tls, tls("other.crt", None), theirs),
            ("an expired certificate", Listener::MutualTls, tls("authority.crt", Some("expired")), ours),
            ("a stranger", Listener::MutualTls, tls("authority.crt", Some("stranger")), ours),
            ("no certificate", Listener::MutualTls, tls("authority.crt", None), ours),
        ];
        for (what, listener, properties, words) in cases {
            let properties: Vec<_> = properties.iter().map(|(name, value)| (*name, value.as_str())).collect();
            configure(workspace, kafka, listener, topic, &properties)?;
            for arguments in [&["validate", "--connect", "pipeline.yaml"][..], &["run", "pipeline.yaml"]] {
                let finished = workspace.run(arguments, SHORT)?;
                finished.expect(1, &words).with_context(|| format!("{what}: {arguments:?}"))?;
                ensure!(!finished.output.contains("wr0ng-s3cr3t"), "{what}: the password was said");
            }
        }
        // Such a broker may also be one that starts, so a run goes on trying and says so.
        configure(workspace, kafka, Listener::Tls, topic, &[])?;
        let said = workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?;
        said.expect(1, &["security.protocol"]).context("plain text to a listener of TLS")?;
        let lake = workspace.path().join("lake");
        let files = if lake.exists() { Lake::Local(&lake).parquet_files()? } else { Vec::new() };
        ensure!(files.is_empty(), "files of nothing: {files:?}");
        Ok(())
    })
}

/// Scenario: while a pipeline runs, its certificate is replaced by one of another authority; then the broker comes back and knows
/// only that one.
/// Guarantees: the pipeline goes on by itself with the new certificate, and every row is there exactly once.
#[test]
fn kafka_certificates_are_replaced_while_it_runs() -> anyhow::Result<()> {
    with_broker("secure-rotation", |workspace, kafka, topic| {
        produce(kafka, topic, 0..1_000)?;
        let own = |name: &str| workspace.path().join(name);
        let replace = |by: &str| -> anyhow::Result<()> {
            for kind in ["crt", "key"] {
                fs::copy(kafka.file(&format!("{by}.{kind}")), own(&format!("own.{kind}")))?;
            }
            Ok(())
        };
        replace("good")?;
        let (ca, certificate, key) = (at(&kafka.file("authority.crt")), at(&own("own.crt")), at(&own("own.key")));
        let properties = [
            ("security.protocol", "SSL"),
            ("ssl.ca.location", &ca),
            ("ssl.certificate.location", &certificate),
            ("ssl.key.location", &key),
        ];
        configure(workspace, kafka, Listener::MutualTls, topic, &properties)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        // A commit of offsets may be on its way just now: librdkafka waits with it for a broker that never takes it.
        process.wait_for_text("..1000", SHORT)?;
        replace("stranger")?;
        kafka.trust_the_other()?;
        produce(kafka, topic, 1_000..2_000)?;
        process.wait_for_text("..2000", LONG)?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &["the lane begins anew"])?;
        compare(workspace, &(0..2_000).collect())?;
        let seen = Lake::Local(&workspace.path().join("lake")).parquet_files()?;
        ensure!(seen.len() >= 2, "one file has it all: {seen:?}");
        Ok(())
    })
}
