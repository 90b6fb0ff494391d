//! A real Kafka broker that lets in only whom it knows: by SASL, by TLS, and by TLS with a client's certificate.

use std::{fs, path::PathBuf};

use super::{
    certificates::Authority,
    free_port,
    kafka::{Extra, Kafka},
};

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
}

/// The broker, with a plain listener for the test itself.
#[derive(Debug)]
pub struct KafkaSecure {
    /// By its plain listener.
    pub kafka: Kafka,
    /// Ports of the listeners.
    ports: [u16; 3],
    /// Where the certificates are.
    folder: PathBuf,
}

impl KafkaSecure {
    /// Starts it. Certificates: `broker`, and of its own authority `good` and `expired` for clients; `stranger` is of another one.
    pub fn start() -> anyhow::Result<Self> {
        let ports = [free_port()?, free_port()?, free_port()?];
        let mut folder = PathBuf::new();
        let kafka = Kafka::start_with(|own| {
            folder.push(own.path());
            let authority = Authority::new(&folder, "authority")?;
            for (name, days) in [("broker", 2), ("good", 2), ("expired", -1)] {
                authority.sign(name, days)?;
            }
            Authority::new(&folder, "other")?.sign("stranger", 2)?;
            fs::copy(folder.join("authority.crt"), folder.join("clients.crt"))?;
            let scram = |mechanism: &str| format!("{mechanism}=[name={USER},password={PASSWORD}]");
            Ok(Extra {
                listeners: vec![
                    ("SCRAM", "SASL_PLAINTEXT", ports[0]),
                    ("TLS", "SSL", ports[1]),
                    ("MUTUAL", "SSL", ports[2]),
                ],
                settings: settings(&folder.display().to_string()),
                format: ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(scram).to_vec(),
            })
        })?;
        Ok(Self { kafka, ports, folder })
    }

    /// `bootstrap_servers` of a listener.
    #[must_use]
    pub fn bootstrap(&self, listener: Listener) -> String {
        let [sasl, tls, mutual] = self.ports;
        let port = match listener {
            Listener::Sasl => sasl,
            Listener::Tls => tls,
            Listener::MutualTls => mutual,
        };
        format!("localhost:{port}")
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
