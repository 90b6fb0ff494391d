//! A plugin without a pipeline, for `plugin test` and `plugin bench`: its file, and what would stand under `config:`.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    Grants, OnReject, OnTrap, PluginConfig, PluginLimits,
    fault::{Collector, Faults, Place},
    node::{Node, Value},
    places::ConfigPlaces,
    yaml,
};

impl PluginConfig {
    /// The component in a file, with the defaults of a pipeline and nothing granted. `config` is YAML or JSON with the name
    /// of the file, or of the flag, that it comes from; `environment` fills its `${VAR}`.
    pub fn alone(
        path: &Path,
        config: Option<(&str, &str)>,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Faults> {
        let faults = Collector::default();
        let node = config.and_then(|(name, text)| read(name, text, environment, &faults));
        let name = path.file_stem().map_or_else(|| "plugin".to_owned(), |stem| stem.to_string_lossy().into_owned());
        let plugin = Self {
            name: name.into(),
            path: path.to_owned(),
            download: None,
            signature: None,
            sha256: None,
            config_json: node.as_ref().map_or_else(|| serde_json::json!({}), Node::to_json).to_string(),
            config_places: ConfigPlaces::new(String::new(), Place::other("--config"), node.as_ref()),
            grants: Grants::default(),
            limits: PluginLimits::default(),
            limits_written: Vec::new(),
            on_reject: OnReject::DeadLetter,
            on_trap: OnTrap::default(),
        };
        faults.finish(Some(plugin))
    }
}

/// Keys and values.
fn read(name: &str, text: &str, environment: &BTreeMap<String, String>, faults: &Collector) -> Option<Node> {
    let name: Arc<str> = name.into();
    let node = yaml::parse(&name, text, environment, faults)?;
    match &node.value {
        Value::Map(_) => Some(node),
        other => {
            let message = format!("expected the keys and values under `config:` of the plugin, found {}", other.kind());
            faults.add(&node.place, "", message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Step;

    #[test]
    fn a_config_is_read_from_yaml_and_json() {
        let read = |text: &str| {
            let environment = BTreeMap::from([("LAND".to_owned(), "DE".to_owned())]);
            PluginConfig::alone(Path::new("plugins/keep.wasm"), Some(("c.yaml", text)), &environment)
        };
        let plugin = read("column: country\nvalues: [\"${LAND}\", 1]\n").unwrap();
        assert_eq!((&*plugin.name, plugin.config_json.as_str()), ("keep", r#"{"column":"country","values":["DE",1]}"#));
        let fault = plugin.config_places.fault(&[Step::Key("values".to_owned())], "is wrong".to_owned());
        assert_eq!(fault.to_string(), "c.yaml:2: values: is wrong");
        assert_eq!(read(r#"{"column": "x"}"#).unwrap().config_json, r#"{"column":"x"}"#);
        let words = read("- a\n").unwrap_err().to_string();
        assert_eq!(words, "c.yaml:1: expected the keys and values under `config:` of the plugin, found a list");
        assert!(read("a: [\n").unwrap_err().to_string().contains("this is not YAML"));
    }
}
