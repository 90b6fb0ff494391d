//! `plugins[]`, and what a tenant allows each of them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{MASK, download, duration, grants, set};
use crate::config::{OnReject, PluginConfig, PluginLimits, Signature, limits::Limit, properties::is_secret};

/// A plugin.
pub(super) fn plugin(config: &PluginConfig) -> Value {
    let PluginConfig {
        name,
        path,
        download,
        sha256,
        signature,
        config_json,
        config_places: _,
        grants,
        limits,
        limits_written: _,
        on_reject,
        on_trap,
    } = config;
    let mut value = json!({"name": **name});
    match download {
        None => set(&mut value, "path", json!(path.display().to_string())),
        Some(download) => {
            set(&mut value, "url", json!(download.location.to_string()));
            set(&mut value, "download", download::download(download));
        }
    }
    if let Some(digest) = sha256 {
        set(&mut value, "sha256", json!(hexadecimal(digest)));
    }
    if let Some(Signature { public_key, path }) = signature {
        set(&mut value, "signature", json!({"public_key": public_key, "path": path.display().to_string()}));
    }
    let own: Value = serde_json::from_str(config_json).unwrap_or_default();
    set(&mut value, "config", masked(&own));
    if !grants.lines().is_empty() {
        set(&mut value, "grants", grants::grants(grants));
    }
    set(&mut value, "limits", plugin_limits(*limits));
    set(&mut value, "on_reject", json!(reject(*on_reject)));
    let backoff = json!({"from": duration(on_trap.backoff_from), "to": duration(on_trap.backoff_to)});
    let mut trap = json!({"retries": on_trap.retries, "then": reject(on_trap.then), "bisect": on_trap.bisect});
    // With `fail` it says nothing, and may not be said.
    if on_trap.then != OnReject::Fail {
        set(&mut trap, "open_circuit_after", json!(on_trap.open_circuit_after));
    }
    set(&mut trap, "backoff", backoff);
    set(&mut value, "on_trap", trap);
    value
}

/// What a plugin may use.
fn plugin_limits(mut limits: PluginLimits) -> Value {
    let shown = limits.table().into_iter().map(|(key, limit)| {
        let value = match limit {
            Limit::Count(most) | Limit::Bytes(most) => json!(*most),
            Limit::Time(most) => json!(duration(*most)),
        };
        (key.to_owned(), value)
    });
    Value::Object(shown.collect())
}

/// Those that a tenant sets for each of its plugins.
pub(super) fn set_limits(limits: PluginLimits) -> Value {
    let (mut set, none) = (plugin_limits(limits), plugin_limits(PluginLimits::none()));
    if let Some(set) = set.as_object_mut() {
        set.retain(|key, value| none.get(key) != Some(value));
    }
    set
}

/// What happens to refused rows.
fn reject(config: OnReject) -> &'static str {
    match config {
        OnReject::DeadLetter => "dead_letter",
        OnReject::Drop => "drop",
        OnReject::Fail => "fail",
    }
}

/// A plugin's own configuration: what its keys say is secret, and passwords in addresses, are masked.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let mask = |(key, value): (&String, &Value)| {
                (key.clone(), if is_secret(key) && !value.is_null() { json!(MASK) } else { masked(value) })
            };
            Value::Object(entries.iter().map(mask).collect())
        }
        Value::Array(list) => list.iter().map(masked).collect(),
        Value::String(text) => match (text.find("://"), text.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => {
                let (scheme, host) = (text.get(..scheme).unwrap_or_default(), text.get(at..).unwrap_or_default());
                json!(format!("{scheme}://{MASK}{host}"))
            }
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

/// Bytes as digits.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_keeps_its_secrets() {
        let config = json!({"api_key": "a", "nested": [{"password": 1, "url": "http://u:p@h/x", "column": "key"}], "token": null});
        let expected = json!({"api_key": MASK, "nested": [{"password": MASK, "url": "http://***@h/x", "column": "key"}], "token": null});
        assert_eq!(masked(&config), expected);
    }
}
