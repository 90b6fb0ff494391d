//! `plugins[].url` and `plugins[].download`: components that are not files of this machine.

use std::{path::Path, time::Duration};

use super::{grants, tls};
use crate::config::{Credentials, Download, Location, Secret, reader::Section, value::positive_duration};

/// How long a download takes that goes well.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that anybody waits for one.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Where a plugin is downloaded from, if it is.
pub(super) fn read(plugin: &Section<'_>, folder: &Path) -> Option<Download> {
    let section = plugin.section("download");
    if !plugin.has("url") {
        if section.is_there() {
            plugin.fault("download", "says how to ask for `url`, which is not there");
        }
        // What is in it was looked at.
        let _ = rest(section, folder);
        return None;
    }
    let location = plugin.get("url", Location::parse);
    if plugin.has("path") {
        plugin.fault("path", "stands beside `url`; a plugin is a file of this machine or downloaded");
        let _ = plugin.node("path");
    }
    let (credentials, ca_file, private, timeout) = rest(section, folder);
    Some(Download { location: location?, credentials, ca_file, private, timeout })
}

/// How it is asked for.
fn rest(
    section: Section<'_>,
    folder: &Path,
) -> (Credentials, Option<std::path::PathBuf>, crate::config::PrivateAddresses, Duration) {
    let text = |key| section.text(key).filter(|text| !text.is_empty());
    let credentials = match (text("username"), text("password"), text("token")) {
        (None, None, None) => Credentials::None,
        (None, None, Some(token)) => Credentials::Token(Secret::new(token)),
        (Some(name), Some(password), None) => Credentials::User(name, Secret::new(password)),
        (Some(_), None, None) => {
            section.fault("username", "is there without `password`");
            Credentials::None
        }
        (None, Some(_), _) => {
            section.fault("password", "is there without `username`");
            Credentials::None
        }
        (Some(_), _, Some(_)) => {
            section.fault("token", "stands beside `username`; a server takes one or the other");
            Credentials::None
        }
    };
    let ca_file = tls::file(&section, folder, "ca_file", "a file of certificates in PEM");
    let private = grants::private(&section);
    let timeout = section.get_or("timeout", TIMEOUT, |text| match positive_duration(text)? {
        time if time > TIMEOUT_MAX => Err(format!("{text} is too long; at most an hour")),
        time => Ok(time),
    });
    section.finish();
    (credentials, ca_file, private, timeout)
}
