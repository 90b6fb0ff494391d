//! A real Kafka broker that lets in only whom it knows: by SASL, by TLS, by TLS with a client's certificate, by a
//! token, and by Kerberos.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::json;

use super::{
    certificates::Authority,
    free_port,
    kafka::{Extra, Kafka},
    kerberos::{self, REALM},
    process::Process,
};
use crate::lake::{python, run_python};

/// Python on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Who clients are to Kerberos.
const CLIENT_PRINCIPAL: &str = "lake";

/// User of the SASL listener.
pub const USER: &str = "reader";

/// Password of the user.
pub const PASSWORD: &str = "s3cr3t-of-the-reader";

/// One of the ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// SASL without encryption: SCRAM-SHA-256, SCRAM-SHA-512, PLAIN.
    Sasl,
    /// TLS: the client knows the broker.
    Tls,
    /// Mutual TLS: the broker knows the client too.
    MutualTls,
    /// SASL with a token: OAUTHBEARER. Whoever comes has to come again after 6 s, with a token that holds then.
    Token,
    /// SASL with a ticket: GSSAPI.
    Kerberos,
}

impl Listener {
    /// Name, security protocol, and place among the ports.
    const ALL: [(Self, &str, &str); 5] = [
        (Self::Sasl, "SCRAM", "SASL_PLAINTEXT"),
        (Self::Tls, "TLS", "SSL"),
        (Self::MutualTls, "MUTUAL", "SSL"),
        (Self::Token, "TOKEN", "SASL_PLAINTEXT"),
        (Self::Kerberos, "KERBEROS", "SASL_PLAINTEXT"),
    ];
}

/// The broker, with a plain listener for the test itself.
#[derive(Debug)]
pub struct KafkaSecure {
    /// By its plain listener.
    pub kafka: Kafka,
    /// Ports of the listeners.
    ports: [u16; 5],
    /// Where the certificates are.
    folder: PathBuf,
    /// Who makes tokens.
    _identity: Process,
    /// Where it is.
    identity_port: u16,
    /// Who makes tickets; nobody where there is no listener for them.
    kdc: Option<Process>,
}

impl KafkaSecure {
    /// Starts it without Kerberos. Certificates: `broker`, and of its own authority `good` and `expired` for clients; `stranger`
    /// is of another one. Keys: `identity` signs tokens, `client` is known to who makes them.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(false)
    }

    /// The same with Kerberos.
    pub fn start_with_kerberos() -> anyhow::Result<Self> {
        Self::start_with(true)
    }

    /// Starts it.
    fn start_with(has_kerberos: bool) -> anyhow::Result<Self> {
        let ports = [free_port()?, free_port()?, free_port()?, free_port()?, free_port()?];
        let (identity_port, mut folder, mut kdc) = (free_port()?, PathBuf::new(), None);
        let kafka = Kafka::start_with(|own| {
            folder.push(own.path());
            let authority = Authority::new(&folder, "authority")?;
            for (name, days) in [("broker", 2), ("good", 2), ("expired", -1), ("identity", 2), ("client", 2)] {
                authority.sign(name, days)?;
            }
            Authority::new(&folder, "other")?.sign("stranger", 2)?;
            fs::copy(folder.join("authority.crt"), folder.join("clients.crt"))?;
            let (at, keys) = (folder.display().to_string(), folder.join("keys.json"));
            fs::write(&keys, run_python("identity.py", &json!({"folder": folder, "port": 0}), &folder)?)?;
            let keys = format!("file://{}", keys.display());
            let mut settings = settings(&at) + &token_settings(&keys);
            let mut options = vec![format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}")];
            if has_kerberos {
                kdc = Some(kerberos::start(&folder, &["kafka/localhost", CLIENT_PRINCIPAL])?);
                settings += &kerberos_settings(&at);
                options.push(format!("-Djava.security.krb5.conf={at}/krb5.conf"));
            }
            let scram = |mechanism: &str| format!("{mechanism}=[name={USER},password={PASSWORD}]");
            let listeners = Listener::ALL.iter().zip(ports).map(|((_, name, protocol), port)| (*name, *protocol, port));
            let listeners = listeners.filter(|(name, ..)| has_kerberos || *name != "KERBEROS");
            Ok(Extra {
                listeners: listeners.collect(),
                settings,
                format: ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(scram).to_vec(),
                options,
            })
        })?;
        let mut identity =
            python("identity.py", &json!({"folder": folder, "port": identity_port}), &folder.join("identity.log"))?;
        identity.wait_for_text("ready", START_LIMIT)?;
        Ok(Self { kafka, ports, folder, _identity: identity, identity_port, kdc })
    }

    /// `bootstrap_servers` of a listener.
    #[must_use]
    pub fn bootstrap(&self, listener: Listener) -> String {
        let place = Listener::ALL.iter().position(|(other, ..)| *other == listener);
        let port = place.and_then(|place| self.ports.get(place)).copied().unwrap_or_default();
        format!("localhost:{port}")
    }

    /// Where tokens are to be had, by `lake` with the password of the user.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("https://localhost:{}/token", self.identity_port)
    }

    /// How many tokens were asked for.
    pub fn tokens_asked(&self) -> anyhow::Result<usize> {
        Ok(fs::read_to_string(self.file("asked")).unwrap_or_default().lines().count())
    }

    /// Variables of a program with a ticket of its own.
    #[must_use]
    pub fn kerberos(&self) -> [(&'static str, String); 3] {
        kerberos::variables(&self.folder)
    }

    /// Whether Kerberos is there.
    #[must_use]
    pub fn has_kerberos(&self) -> bool {
        self.kdc.is_some()
    }

    /// From now on the broker knows the clients of the other authority, and them alone. It is started anew.
    pub fn trust_the_other(&self) -> anyhow::Result<()> {
        self.kafka.stop()?;
        fs::copy(self.file("other.crt"), self.file("clients.crt"))?;
        self.kafka.start_again()
    }

    /// A file of a certificate or key.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// What the listeners want.
fn settings(folder: &str) -> String {
    format!(
        "listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
listener.name.scram.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.scram.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/clients.crt
listener.name.mutual.ssl.client.auth=required
"
    )
}

/// Settings of the listener for tokens; `keys` is the URL of those that sign them.
fn token_settings(keys: &str) -> String {
    let oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearer";
    format!(
        "listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.token.oauthbearer.sasl.jaas.config={oauth}LoginModule required;
listener.name.token.oauthbearer.sasl.server.callback.handler.class={oauth}ValidatorCallbackHandler
listener.name.token.oauthbearer.connections.max.reauth.ms=6000
listener.name.token.oauthbearer.sasl.oauthbearer.jwks.endpoint.url={keys}
listener.name.token.oauthbearer.sasl.oauthbearer.expected.audience=kafka
listener.name.token.oauthbearer.sasl.oauthbearer.expected.issuer=https://identity.test
"
    )
}

/// Settings of the listener for tickets.
fn kerberos_settings(folder: &str) -> String {
    format!(
        "listener.name.kerberos.sasl.enabled.mechanisms=GSSAPI
listener.name.kerberos.sasl.kerberos.service.name=kafka
listener.name.kerberos.gssapi.sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true \\
storeKey=true keyTab=\"{folder}/keytab\" principal=\"kafka/localhost@{REALM}\";
"
    )
}
