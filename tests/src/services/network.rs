//! A network of its own for a test: with addresses of the public internet, private ones and a name server, none of which anybody
//! else sees.
//!
//! The test program starts itself once more under `unshare`, which gives it an empty network, mounts of its own and the rights of
//! root over both, and runs the same test there. So a test may listen at port 53 and at `1.1.1.1`, and the program under test asks
//! the resolver of the system as it does everywhere. It needs Linux, and leave to make namespaces.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{
    folder::TestFolder,
    process::{Ended, Process},
};

/// Set for the test program within.
const INSIDE: &str = "FS_DATA_SINK_TEST_NETWORK";

/// Where the name server has to listen.
pub const NAME_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// Makes the network and goes on as the command that is given. Names come from the name server alone, whatever the machine's own
/// files say.
const SCRIPT: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
for address in $ADDRESSES; do ip address add "$address/32" dev lo; done
mount --bind "$FILES/resolv.conf" /etc/resolv.conf
if [ -e /etc/nsswitch.conf ]; then mount --bind "$FILES/nsswitch.conf" /etc/nsswitch.conf; fi
exec "$@"
"#;

/// Whether this is the test program within.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Why no network can be made here, if so.
#[must_use]
pub fn is_missing() -> Option<String> {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--net", "sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up"]);
    let tried = command.output();
    match tried {
        Err(error) => Some(format!("unshare: {error}")),
        Ok(output) if !output.status.success() => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Ok(_) => None,
    }
}

/// Runs one test of this program, by its whole name, in a network with these addresses besides `127.0.0.0/8` and `::1`.
pub fn run_inside(test: &str, addresses: &[Ipv4Addr], limit: Duration) -> anyhow::Result<()> {
    let files = TestFolder::new("network")?;
    let server = NAME_SERVER.ip();
    fs::write(files.path().join("resolv.conf"), format!("nameserver {server}\noptions timeout:5 attempts:1\n"))?;
    fs::write(files.path().join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: dns\n")?;
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "--net", "sh", "-c", SCRIPT, "sh"])
        .arg(std::env::current_exe().context("where this test is")?)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .env("ADDRESSES", addresses.join(" "))
        .env("FILES", files.path());
    let mut process = Process::start("the test in a network of its own", command, &files.path().join("test.log"))?;
    let ended = process.wait(limit)?;
    let log = process.log();
    ensure!(ended == Ended::Code(0) && log.contains("1 passed"), "{ended:?}\n{log}");
    Ok(())
}
