//! A Kafka that lets in only whom it knows.

use std::{fs, ops::Range, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::Lake,
    program::{Configuration, Workspace, end, local_sink},
    services::{
        kafka_secure::{KafkaSecure, Listener, PASSWORD, USER},
        kerberos::REALM,
        process::Signal,
    },
    wait::{self, Look},
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
    with_this_broker(&KafkaSecure::start()?, name, body)
}

/// The same with a broker that is there.
fn with_this_broker(
    kafka: &KafkaSecure,
    name: &str,
    body: impl FnOnce(&mut Workspace, &KafkaSecure, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let topic = unique(name);
    kafka.kafka.create_topic(&topic, 1)?;
    scenario(name, |workspace| body(workspace, kafka, &topic))
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
                ["the user, the password or the token", "sasl."],
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

/// Properties of a client that shows a secret for a token.
fn with_secret(kafka: &KafkaSecure, secret: &str) -> Vec<(&'static str, String)> {
    [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.token.endpoint.url", &kafka.token_endpoint()),
        ("https.ca.location", &at(&kafka.file("authority.crt"))),
        ("sasl.oauthbearer.client.id", "lake"),
        ("sasl.oauthbearer.client.secret", secret),
        ("sasl.oauthbearer.scope", "kafka"),
        ("sasl.oauthbearer.extensions", "pool=p-1,cluster=c-2"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// The same properties as [`configure`] takes them.
fn borrowed<'a>(properties: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    properties.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Scenario: tokens of an identity provider, for a client with a secret and for one that signs an assertion; then tokens that hold
/// 8 s only, for a broker that wants to see one every 6 s, with a provider that is away at first.
/// Guarantees: every row arrives exactly once, new tokens are asked for in time, and no secret is said.
#[test]
fn kafka_takes_tokens() -> anyhow::Result<()> {
    with_broker("secure-token", |workspace, kafka, topic| {
        produce(kafka, topic, 0..1_000)?;
        let secret = with_secret(kafka, PASSWORD);
        let assertion: Vec<_> = secret
            .iter()
            .filter(|(name, _)| !name.contains("client.") && !name.ends_with("scope"))
            .cloned()
            .chain([
                ("sasl.oauthbearer.grant.type", "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned()),
                ("sasl.oauthbearer.assertion.private.key.file", at(&kafka.file("client.key"))),
                ("sasl.oauthbearer.assertion.claim.aud", "identity".to_owned()),
                ("sasl.oauthbearer.assertion.claim.sub", "lake".to_owned()),
                ("sasl.oauthbearer.assertion.claim.jti.include", "true".to_owned()),
            ])
            .collect();
        for properties in [&secret, &assertion] {
            configure(workspace, kafka, Listener::Token, topic, &borrowed(properties))?;
            let said = workspace.run(&["validate", "--connect", "--print", "pipeline.yaml"], SHORT)?;
            said.expect(0, &[])?;
            let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?;
            finished.expect(0, &[])?;
            ensure!(!said.output.contains(PASSWORD) && !finished.output.contains(PASSWORD), "the secret was said");
            compare(workspace, &(0..1_000).collect())?;
            fs::remove_dir_all(workspace.path().join("lake"))?;
        }
        fs::write(kafka.file("lifetime"), "8")?;
        // With extensions librdkafka asks every 10 s only.
        let plain: Vec<_> = secret.into_iter().filter(|(name, _)| !name.ends_with("extensions")).collect();
        configure(workspace, kafka, Listener::Token, topic, &borrowed(&plain))?;
        let before = kafka.tokens_asked()?;
        fs::write(kafka.file("status"), "503")?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait::until("a request that is not answered", SHORT, || {
            let asked = kafka.tokens_asked()? - before;
            Ok(Look::when(asked >= 1, format!("{asked} tokens were asked for")))
        })?;
        fs::remove_file(kafka.file("status"))?;
        process.wait_for_text("..1000", SHORT)?;
        for next in 1..=4_u64 {
            std::thread::sleep(Duration::from_secs(4));
            produce(kafka, topic, next * 1_000..(next + 1) * 1_000)?;
        }
        process.wait_for_text("..5000", LONG)?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &["503"])?;
        let asked = kafka.tokens_asked()? - before;
        ensure!(asked >= 3, "only {asked} tokens were asked for");
        compare(workspace, &(0..5_000).collect()).map(drop)
    })
}

/// Scenario: a wrong secret, a provider whose certificate is of an unknown authority, one that is away, and properties that say
/// too little.
/// Guarantees: `validate --connect` ends with 1 and names the cause; so does `run` where a person has to act. No secret is said.
#[test]
fn kafka_without_a_token_is_told_in_words() -> anyhow::Result<()> {
    with_broker("secure-no-token", |workspace, kafka, topic| {
        let without = |left_out: &str| -> Vec<_> {
            let properties = with_secret(kafka, PASSWORD).into_iter();
            properties.filter(|(name, _)| *name != left_out).collect()
        };
        let check = |properties: &[(&'static str, String)], runs: bool, words: &[&str]| -> anyhow::Result<()> {
            configure(workspace, kafka, Listener::Token, topic, &borrowed(properties))?;
            let commands = [&["validate", "--connect", "pipeline.yaml"][..], &["run", "pipeline.yaml"]];
            for arguments in commands.into_iter().take(if runs { 2 } else { 1 }) {
                let finished = workspace.run(arguments, SHORT)?;
                finished.expect(1, words).with_context(|| format!("{arguments:?}"))?;
                ensure!(!finished.output.contains("wr0ng-s3cr3t"), "the secret was said");
            }
            Ok(())
        };
        let wrong = with_secret(kafka, "wr0ng-s3cr3t");
        check(&wrong, true, &["the token endpoint refuses this client", "invalid_client"])?;
        check(&without("https.ca.location"), false, &["the token endpoint", "does not answer", "certificate"])?;
        configure(workspace, kafka, Listener::Token, topic, &borrowed(&without("sasl.oauthbearer.client.secret")))?;
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(2, &["sasl.oauthbearer.client.secret is missing"])?;
        fs::write(kafka.file("status"), "503")?;
        check(&with_secret(kafka, PASSWORD), false, &["the token endpoint is not ready", "503"])
    })
}

/// Scenario: Kerberos, with a ticket from the environment, with a keytab and a principal of the configuration, and with neither.
/// Guarantees: every row arrives exactly once both ways; without a ticket the words say what is missing.
#[test]
fn kafka_takes_tickets() -> anyhow::Result<()> {
    with_this_broker(&KafkaSecure::start_with_kerberos()?, "secure-ticket", |workspace, kafka, topic| {
        produce(kafka, topic, 0..1_000)?;
        let plain = [
            ("security.protocol", "SASL_PLAINTEXT".to_owned()),
            ("sasl.mechanism", "GSSAPI".to_owned()),
            ("sasl.kerberos.service.name", "kafka".to_owned()),
        ];
        let keytab =
            [("sasl.kerberos.keytab", at(&kafka.file("keytab"))), ("sasl.kerberos.principal", format!("lake@{REALM}"))];
        let [(config, its_path), (keys, their_path), (cache, _)] = kafka.kerberos();
        workspace.set(config, &its_path);
        configure(workspace, kafka, Listener::Kerberos, topic, &borrowed(&plain))?;
        workspace.set(cache, &at(&workspace.path().join("nothing")));
        for arguments in [&["validate", "--connect", "pipeline.yaml"][..], &["run", "pipeline.yaml"]] {
            workspace.run(arguments, SHORT)?.expect(1, &["Kerberos", "sasl.kerberos.keytab"])?;
        }
        for (name, environment, properties) in
            [("own", Some(&their_path), plain.to_vec()), ("keytab", None, [&plain[..], &keytab].concat())]
        {
            workspace.set(keys, environment.map_or("/nowhere", String::as_str));
            workspace.set(cache, &at(&workspace.path().join(name)));
            configure(workspace, kafka, Listener::Kerberos, topic, &borrowed(&properties))?;
            workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?.expect(0, &[]).context(name)?;
            workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[]).context(name)?;
            compare(workspace, &(0..1_000).collect())?;
            fs::remove_dir_all(workspace.path().join("lake"))?;
        }
        Ok(())
    })
}
