//! Where a plugin is downloaded from.

use serde_json::{Value, json};

use super::{MASK, duration, set};
use crate::config::{Credentials, Download};

/// How it is asked for.
pub(super) fn download(config: &Download) -> Value {
    let Download { location: _, credentials, ca_file, private, timeout } = config;
    let mut value = json!({"timeout": duration(*timeout), "allow_private": super::grants::private(private)});
    match credentials {
        Credentials::None => {}
        Credentials::User(name, _) => {
            set(&mut value, "username", json!(name));
            set(&mut value, "password", json!(MASK));
        }
        Credentials::Token(_) => set(&mut value, "token", json!(MASK)),
    }
    if let Some(path) = ca_file {
        set(&mut value, "ca_file", json!(path.display().to_string()));
    }
    value
}
