//! A certificate authority of a test, by OpenSSL's command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// An authority, and what it has signed: `<name>.key`, `<name>.crt`, and `<name>.pem` with both, in one folder.
#[derive(Debug)]
pub struct Authority {
    /// Where the files are.
    folder: PathBuf,
    /// Its own name.
    name: String,
}

impl Authority {
    /// A new one; `<name>.crt` is what others trust.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let subject = format!("/CN={name}");
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        openssl(
            folder,
            &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject, "-keyout", &key],
            &["-out", &certificate],
        )?;
        Ok(Self { folder: folder.to_owned(), name: name.to_owned() })
    }

    /// A key and a certificate for `localhost`, good for so many days; for -1, expired yesterday.
    pub fn sign(&self, name: &str, days: i32) -> Result<()> {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        openssl(
            &self.folder,
            &["req", "-newkey", "rsa:2048", "-nodes", "-subj", &format!("/CN={name}"), "-addext", names],
            &["-keyout", &key, "-out", &request],
        )?;
        let (ca, ca_key) = (format!("{}.crt", self.name), format!("{}.key", self.name));
        openssl(
            &self.folder,
            &["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"],
            &["-days", &days.to_string(), "-copy_extensions", "copy", "-out", &certificate],
        )?;
        let both = [fs::read(self.folder.join(&key))?, fs::read(self.folder.join(&certificate))?].concat();
        fs::write(self.folder.join(format!("{name}.pem")), both).context("cannot write a certificate")
    }
}

/// Runs OpenSSL's command in a folder.
fn openssl(folder: &Path, arguments: &[&str], more: &[&str]) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(arguments).args(more).current_dir(folder).stdin(Stdio::null());
    let output = command.output().context("openssl is missing")?;
    ensure!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
