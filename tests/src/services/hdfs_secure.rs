//! A real HDFS as companies run it: Kerberos for the RPC, everything encrypted, HTTPS for the REST interface, which lets in
//! whoever has a delegation token.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    folder::TestFolder,
    free_port,
    hdfs::{DATANODE, NAMENODE, START_LIMIT, at, java, run_tool, settings, write_site},
    kerberos::{self, REALM},
    process::Process,
};
use crate::wait::{self, Look};

/// The superuser.
const SUPERUSER: &str = "hdfs";

/// Who everybody is: servers have one principal, and so has the program. Hadoop's rules make all of them the superuser.
const PRINCIPAL: &str = "hdfs/localhost";

/// Who the REST interface is.
const WEB_PRINCIPAL: &str = "HTTP/localhost";

/// Password of the key store.
const PASSWORD: &str = "changeit";

/// Main class of the tool that fetches a delegation token.
const FETCHER: &str = "org.apache.hadoop.hdfs.tools.DelegationTokenFetcher";

/// The cluster; its processes end with this value.
#[derive(Debug)]
pub struct HdfsSecure {
    /// Data, settings, keys, logs.
    folder: TestFolder,
    /// Port of the RPC.
    rpc_port: u16,
    /// Port of WebHDFS.
    https_port: u16,
    /// What the REST interface takes for a password.
    token: String,
    /// Key distribution centre, namenode, datanode.
    _processes: [Process; 3],
}

impl HdfsSecure {
    /// Starts everything and waits until the cluster takes files by RPC.
    pub fn start() -> anyhow::Result<Self> {
        let folder = TestFolder::new("hdfs-secure")?;
        let root = folder.path().to_owned();
        let kdc = kerberos::start(&root, &[PRINCIPAL, WEB_PRINCIPAL])?;
        make_certificate(&root)?;
        let (rpc_port, https_port) = (free_port()?, free_port()?);
        write_settings(&root, rpc_port, https_port)?;
        run_tool(secure_java(&root)?, &root, &[NAMENODE, "-format", "-nonInteractive", "-force"])?;
        let daemon = |class: &str| -> anyhow::Result<Process> {
            let mut command = secure_java(&root)?;
            command.arg(class);
            Process::start(class, command, &root.join(format!("{class}.log")))
        };
        let mut processes = [kdc, daemon(NAMENODE)?, daemon(DATANODE)?];
        let fetched = root.join("token");
        let fetch = [FETCHER, "--renewer", SUPERUSER, fetched.to_str().context("a path that is no text")?];
        wait::until("a delegation token", START_LIMIT, || {
            for process in &mut processes {
                process.ensure_running()?;
            }
            let tried = run_tool(secure_java(&root)?, &root, &fetch);
            Ok(tried.map_or_else(|error| Look::NotYet(format!("{error:#}")), Look::Done))
        })?;
        let token = token_of(&fs::read(&fetched)?)?;
        Ok(Self { folder, rpc_port, https_port, token, _processes: processes })
    }

    /// `sink.url` for Hadoop's RPC.
    #[must_use]
    pub fn native_url(&self) -> String {
        format!("hdfs://localhost:{}", self.rpc_port)
    }

    /// `sink.url` for WebHDFS.
    #[must_use]
    pub fn web_url(&self) -> String {
        format!("https://localhost:{}", self.https_port)
    }

    /// `sink.delegation_token`.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// `sink.ca_file`.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// `sink.hadoop_conf_dir`.
    #[must_use]
    pub fn conf_dir(&self) -> PathBuf {
        self.folder.path().join("conf")
    }

    /// Variables that a program needs to have a ticket of its own accord.
    #[must_use]
    pub fn kerberos(&self) -> [(&'static str, String); 3] {
        kerberos::variables(self.folder.path())
    }

    /// Leaves its folder on disk, for whoever looks into a failure; returns where the logs are.
    pub fn keep_log(&mut self) -> String {
        self.folder.keep();
        self.folder.path().display().to_string()
    }
}

/// A key and a certificate for `localhost`.
fn make_certificate(root: &Path) -> anyhow::Result<()> {
    let keytool = |arguments: &[&str]| -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new("keytool");
        command.args(arguments).args(["-alias", "hdfs", "-keystore", "keys.p12", "-storepass", PASSWORD]);
        let output = command.current_dir(root).output().context("cannot start keytool, which comes with Java")?;
        ensure!(output.status.success(), "keytool: {}", String::from_utf8_lossy(&output.stdout));
        Ok(output.stdout)
    };
    let names = "SAN=dns:localhost,ip:127.0.0.1";
    keytool(&["-genkeypair", "-keyalg", "RSA", "-dname", "CN=localhost", "-ext", names, "-storetype", "PKCS12"])?;
    fs::write(root.join("ca.pem"), keytool(&["-exportcert", "-rfc"])?)?;
    Ok(())
}

/// Java with the cluster's settings and Kerberos.
fn secure_java(root: &Path) -> anyhow::Result<Command> {
    let mut command = java(root, "conf")?;
    let inside = "java.security.jgss/sun.security.krb5=ALL-UNNAMED";
    let options = format!(
        "-Djava.security.krb5.conf={} --add-opens={inside} --add-exports={inside}",
        root.join("krb5.conf").display()
    );
    // The servers log in by their settings, the tools by these two variables.
    let keytab = root.join("keytab");
    command.env("JDK_JAVA_OPTIONS", options).env("KRB5PRINCIPAL", PRINCIPAL).env("KRB5KEYTAB", keytab);
    Ok(command)
}

/// Settings of the servers and of clients.
fn write_settings(root: &Path, rpc_port: u16, https_port: u16) -> anyhow::Result<()> {
    let keytab = root.join("keytab").display().to_string();
    let of_realm = |name: &str| format!("{name}@{REALM}");
    let text = |value: &str| value.to_owned();
    let own = [
        ("hadoop.security.authentication", text("kerberos")),
        ("hadoop.security.authorization", text("true")),
        ("hadoop.rpc.protection", text("privacy")),
        ("hadoop.security.auth_to_local", format!("RULE:[2:$1](.*)s/.*/{SUPERUSER}/\nDEFAULT")),
        ("dfs.namenode.name.dir", at(root, "names")),
        ("dfs.namenode.https-address", format!("localhost:{https_port}")),
        ("dfs.namenode.kerberos.principal", of_realm(PRINCIPAL)),
        ("dfs.namenode.keytab.file", keytab.clone()),
        ("dfs.datanode.https.address", format!("localhost:{}", free_port()?)),
        ("dfs.datanode.hostname", text("localhost")),
        ("dfs.datanode.kerberos.principal", of_realm(PRINCIPAL)),
        ("dfs.datanode.keytab.file", keytab.clone()),
        ("dfs.web.authentication.kerberos.principal", of_realm(WEB_PRINCIPAL)),
        ("dfs.web.authentication.kerberos.keytab", keytab),
        ("dfs.http.policy", text("HTTPS_ONLY")),
        ("dfs.block.access.token.enable", text("true")),
        ("dfs.data.transfer.protection", text("privacy")),
    ];
    settings(root, "conf", &format!("hdfs://localhost:{rpc_port}"), &own)?;
    for side in ["server", "client"] {
        let keys = root.join("keys.p12").display().to_string();
        let store = ["keystore", "truststore"].into_iter().flat_map(|store| {
            [("location", keys.clone()), ("password", text(PASSWORD)), ("type", text("pkcs12"))]
                .map(|(name, value)| (format!("ssl.{side}.{store}.{name}"), value))
        });
        let mut properties: Vec<_> = store.collect();
        properties.push((format!("ssl.{side}.keystore.keypassword"), text(PASSWORD)));
        write_site(&root.join("conf").join(format!("ssl-{side}.xml")), &properties)?;
    }
    Ok(())
}

/// The one token of a file of Hadoop's credentials, as WebHDFS takes it: the file is `HDTS`, a version, the number of tokens, and
/// for each its name with a length before it and the token; then the number of keys, none.
fn token_of(file: &[u8]) -> anyhow::Result<String> {
    let [b'H', b'D', b'T', b'S', 0, 1, name_bytes, rest @ .., 0] = file else {
        anyhow::bail!("not a file with one of Hadoop's tokens: {file:?}");
    };
    let token = rest.get(usize::from(*name_bytes)..).context("a token without a name")?;
    Ok(URL_SAFE_NO_PAD.encode(token))
}
