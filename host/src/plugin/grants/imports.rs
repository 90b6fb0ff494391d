//! What a component imports, held against what its plugin was granted.
//!
//! Pure. What it does not know it refuses.

use std::fmt;

use wasmtime::{Engine, component::Component};

use crate::config::Grants;

/// Interfaces that every plugin may import, by name without version.
const FREE: [&str; 5] = [
    "fs-data-sink:plugin/types",
    "fs-data-sink:plugin/batches",
    "fs-data-sink:plugin/metrics",
    "wasi:logging/logging",
    // Answers what `grants.config` says, and otherwise nothing.
    "wasi:config/store",
];
/// WASI 0.2 packages that are linked for every plugin, with nothing behind them that was not granted: language runtimes import
/// them even where nothing uses them.
const RUNTIME_PACKAGES: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
/// What requests are made with.
const HTTP: [&str; 2] = ["wasi:http/types", "wasi:http/outgoing-handler"];
/// What buckets are opened and asked with.
const KEYVALUE: [&str; 2] = ["wasi:keyvalue/store", "wasi:keyvalue/batch"];

/// What an import needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportNeed {
    /// Nothing: it is there for every plugin.
    Nothing,
    /// A server under `grants.http`.
    Http,
    /// A bucket under `grants.keyvalue`.
    Keyvalue,
    /// This host does not have it.
    NotServed,
}

/// One import of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// With its version, such as `wasi:http/outgoing-handler@0.2.12`.
    pub name: String,
    /// What it needs.
    pub need: ImportNeed,
}

impl ImportNeed {
    /// What an import needs, by its name with version.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        let is_runtime = RUNTIME_PACKAGES.iter().any(|package| interface.starts_with(package));
        if FREE.contains(&interface) || (is_runtime && version.starts_with("0.2.")) {
            Self::Nothing
        } else if HTTP.contains(&interface) && version.starts_with("0.2.") {
            Self::Http
        } else if KEYVALUE.contains(&interface) && version == "0.2.0-draft" {
            Self::Keyvalue
        } else {
            Self::NotServed
        }
    }

    /// Whether it is met.
    fn is_met(self, grants: &Grants) -> bool {
        match self {
            Self::Nothing => true,
            Self::Http => !grants.http.is_empty(),
            Self::Keyvalue => !grants.keyvalue.is_empty(),
            Self::NotServed => false,
        }
    }

    /// The lines of YAML below the plugin that would meet it.
    #[must_use]
    pub fn example(self) -> Option<&'static str> {
        match self {
            Self::Http => Some("grants:\n  http:\n    - {host: api.example.com, port: 443, methods: [GET]}"),
            Self::Keyvalue => Some(
                "grants:\n  keyvalue:\n    - {bucket: customers, access: read, table: {path: customers.csv, key: id}}",
            ),
            Self::Nothing | Self::NotServed => None,
        }
    }
}

impl fmt::Display for ImportNeed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nothing => "nothing",
            Self::Http => "grants.http",
            Self::Keyvalue => "grants.keyvalue",
            Self::NotServed => "not served",
        })
    }
}

/// The imports of a component, in its order.
pub(in crate::plugin) fn imports(engine: &Engine, component: &Component) -> Vec<Import> {
    let component_type = component.component_type();
    let import = |(name, _): (&str, _)| Import { need: ImportNeed::of(name), name: name.to_owned() };
    component_type.imports(engine).map(import).collect()
}

/// Refuses imports that were not granted, in words that say what to grant.
pub(in crate::plugin) fn check(engine: &Engine, component: &Component, grants: &Grants) -> Result<(), String> {
    let refused: Vec<_> = imports(engine, component).into_iter().filter(|import| !import.need.is_met(grants)).collect();
    refusal(&refused).map_or(Ok(()), Err)
}

/// The words for imports that were not granted; none where there is none.
fn refusal(refused: &[Import]) -> Option<String> {
    let mut words = Vec::new();
    for need in [ImportNeed::Http, ImportNeed::Keyvalue, ImportNeed::NotServed] {
        let names: Vec<_> =
            refused.iter().filter(|import| import.need == need).map(|import| import.name.as_str()).collect();
        if names.is_empty() {
            continue;
        }
        let names = names.join(", ");
        words.push(match need.example() {
            Some(example) => {
                format!("imports {names}, which is not granted; if it should, add to this plugin:\n{example}")
            }
            None => format!(
                "imports {names}, which is not granted and cannot be; a plugin may import fs-data-sink:plugin, \
                 wasi:logging, wasi:config, WASI 0.2, and by grant wasi:http and the store and batch of wasi:keyvalue"
            ),
        });
    }
    (!words.is_empty()).then(|| words.join("\nand "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_import_is_free_or_by_grant_or_refused() {
        for (need, names) in [
            (
                ImportNeed::Nothing,
                &[
                    "fs-data-sink:plugin/batches@0.1.0",
                    "fs-data-sink:plugin/types@0.1.7",
                    "wasi:logging/logging@0.1.0-draft",
                    "wasi:config/store@0.2.0-rc.1",
                    "wasi:filesystem/types@0.2.12",
                    "wasi:sockets/tcp@0.2.0",
                ][..],
            ),
            (ImportNeed::Http, &["wasi:http/types@0.2.0", "wasi:http/outgoing-handler@0.2.12"]),
            (ImportNeed::Keyvalue, &["wasi:keyvalue/store@0.2.0-draft", "wasi:keyvalue/batch@0.2.0-draft"]),
            (
                ImportNeed::NotServed,
                &[
                    "wasi:http/incoming-handler@0.2.12",
                    "wasi:http/types@0.3.0",
                    "wasi:keyvalue/atomics@0.2.0-draft",
                    "wasi:keyvalue/watcher@0.2.0-draft",
                    "wasi:keyvalue/store@0.2.0",
                    "wasi:filesystem/types@0.3.0",
                    "wasi:clocks/monotonic-clock",
                    "fs-data-sink:plugin/secrets@0.1.0",
                    "env",
                ],
            ),
        ] {
            for name in names {
                assert_eq!(ImportNeed::of(name), need, "{name}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_imports_and_the_lines_to_add() {
        let import = |name: &str| Import { name: name.to_owned(), need: ImportNeed::of(name) };
        assert_eq!(refusal(&[]), None);
        let words = refusal(&[
            import("wasi:http/types@0.2.3"),
            import("wasi:http/outgoing-handler@0.2.3"),
            import("wasi:keyvalue/atomics@0.2.0-draft"),
        ])
        .unwrap();
        assert!(words.starts_with(
            "imports wasi:http/types@0.2.3, wasi:http/outgoing-handler@0.2.3, which is not granted; if it should, add to \
             this plugin:\ngrants:\n  http:\n    - {host: api.example.com, port: 443, methods: [GET]}\nand imports \
             wasi:keyvalue/atomics@0.2.0-draft, which is not granted and cannot be; a plugin may import"
        ));
    }
}
