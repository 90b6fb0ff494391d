//! A key distribution centre of Kerberos: Apache Kerby's, as Hadoop's own tests start it.

use std::{fs, path::Path, process::Command};

use super::{
    download,
    hdfs::{JVM, START_LIMIT},
    process::Process,
};

/// Realm of the principals.
pub const REALM: &str = "FSDATASINK.TEST";

/// Kerby's settings: TCP only, on loopback, on a free port.
const KDC_SETTINGS: &str = "org.name=FSDATASINK
org.domain=TEST
kdc.bind.address=localhost
kdc.port=0
instance=DefaultKrbServer
max.ticket.lifetime=86400000
max.renewable.lifetime=604800000
transport=TCP
debug=false
";

/// Main class of the key distribution centre.
const KDC: &str = "org.apache.hadoop.minikdc.MiniKdc";

/// Starts it in a folder, where it writes `krb5.conf` and the keys of the principals: `keytab`.
pub(super) fn start(root: &Path, principals: &[&str]) -> anyhow::Result<Process> {
    fs::write(root.join("kdc.properties"), KDC_SETTINGS)?;
    let mut command = Command::new("java");
    command.args(JVM).arg("-cp").arg(format!("{}/*", download::hdfs_jars()?.display())).current_dir(root);
    command.args([KDC, ".", "kdc.properties", "keytab"]).args(principals);
    let mut kdc = Process::start("the key distribution centre", command, &root.join("kdc.log"))?;
    kdc.wait_for_text("Standalone MiniKdc Running", START_LIMIT)?;
    Ok(kdc)
}

/// Variables that a program needs to have a ticket of its own accord.
pub(super) fn variables(root: &Path) -> [(&'static str, String); 3] {
    let at = |name: &str| root.join(name).display().to_string();
    [("KRB5_CONFIG", at("krb5.conf")), ("KRB5_CLIENT_KTNAME", at("keytab")), ("KRB5CCNAME", at("tickets"))]
}
