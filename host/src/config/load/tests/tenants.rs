//! Budgets of tenants, and files of which some are wrong.

use std::time::Duration;

use super::*;
use crate::config::{PluginLimits, TenantConfig};

/// Writes files into a folder.
fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.wasm"), COMPONENT).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Loads a folder file by file: the pipelines that may run, and the faults of the others by file.
fn load_folder(files: &[(&str, &str)]) -> Result<(Vec<String>, Vec<String>), String> {
    let folder = folder_of(files);
    let prefix = format!("{}/", folder.path().display());
    let shown = |text: String| text.replace(&prefix, "");
    let inputs = Inputs { paths: vec![folder.path().to_owned()], ..Inputs::default() };
    let Loaded { config, files, wrong } = load_each(&inputs).map_err(|faults| shown(faults.to_string()))?;
    assert_eq!(config.pipelines.len(), files.len());
    Ok((
        config.pipelines.iter().map(|one| one.name.to_string()).collect(),
        wrong.into_values().map(|faults| shown(faults.to_string())).collect(),
    ))
}

#[test]
fn budgets_are_read_printed_and_read_again() {
    let budgets = "memory: 1GiB, open_files: 100, plugin_instances: 8, cpu_share: 200, bytes_per_second: 50MB, \
                   egress_bytes_per_second: 1MB, limits: {memory: 64MiB, call_timeout: 1s}, untrusted: true";
    let text = format!("tenant: shop\n{RIGHT}tenants:\n  shop: {{{budgets}}}\n  guests: {{}}\n");
    let config = load_text(&text, &[], &[]).unwrap();
    let expected = TenantConfig {
        memory_bytes: Some(1 << 30),
        open_files: Some(100),
        plugin_instances: Some(8),
        cpu_share: Some(200),
        bytes_per_second: Some(50_000_000),
        egress_bytes_per_second: Some(1_000_000),
        plugin_limits: Some(PluginLimits {
            memory_bytes: 64 << 20,
            call_timeout: Duration::from_secs(1),
            ..PluginLimits::none()
        }),
        is_untrusted: true,
    };
    assert_eq!((config.tenants["shop"], config.tenants["guests"]), (expected, TenantConfig::default()));
    let again = load_text(&config.to_yaml(), &[], &[]).unwrap();
    assert_eq!(again.tenants, config.tenants);
    let wrong = "{memory: 1MiB, open_files: 0, cpu_share: 10001, colour: red}";
    assert_eq!(
        faults(&format!("tenant: shop\n{RIGHT}tenants:\n  shop: {wrong}\n")),
        "orders.yaml:5: tenants.shop.colour: unknown key; known here: bytes_per_second, \
         cpu_share, egress_bytes_per_second, limits, memory, open_files, plugin_instances, untrusted\n\
         orders.yaml:5: tenants.shop.cpu_share: 10001 is too much; 1 to 10000, 100 for who says nothing\n\
         orders.yaml:5: tenants.shop.memory: 1MiB is too little; at least 32MiB\n\
         orders.yaml:5: tenants.shop.open_files: must be more than 0"
    );
}

#[test]
fn plugins_of_a_tenant_have_what_it_allows_and_asking_for_more_is_told() {
    let text = |limits: &str| {
        format!(
            "tenant: shop\n{RIGHT}tenants: {{shop: {{limits: {{memory: 64MiB, call_timeout: 1s}}}}}}\n\
             plugins: [{{path: p.wasm, limits: {{{limits}}}}}]\n"
        )
    };
    let config = load_text(&text("call_timeout: 500ms"), &[], &[]).unwrap();
    let limits = config.pipelines[0].plugins[0].limits;
    let default = PluginLimits::default();
    assert_eq!((limits.memory_bytes, limits.call_timeout), (64 << 20, Duration::from_millis(500)));
    assert_eq!((limits.output_rows, limits.instances), (default.output_rows, default.instances));
    let printed = config.to_yaml();
    assert!(printed.contains("memory: 67108864") && printed.contains("500ms"), "{printed}");
    assert_eq!(
        faults(&text("memory: 1GiB, call_timeout: 2m")),
        "orders.yaml:1: plugins: p: limits.call_timeout: 120s is more than shop may have (orders.yaml:4: limits.call_timeout): 1s\n\
         orders.yaml:1: plugins: p: limits.memory: 1073741824 is more than shop may have (orders.yaml:4: limits.memory): 67108864"
    );
    // The same as the default, but asked for.
    assert_eq!(
        faults(&text("memory: 256MiB")),
        "orders.yaml:1: plugins: p: limits.memory: 268435456 is more than shop may have (orders.yaml:4: limits.memory): 67108864"
    );
}

#[test]
fn a_pipeline_is_of_a_tenant_that_is_described_and_untrusted_ones_pin_their_plugins() {
    let text = format!("tenant: shpo\n{RIGHT}tenants: {{shop: {{}}}}\n");
    assert_eq!(
        faults(&text),
        "orders.yaml:1: tenant: shpo is not among `tenants`, where its budgets belong (`shpo: {}` sets none); did you mean \
         shop?"
    );
    let text = format!("tenant: shop\n{RIGHT}tenants: {{shop: {{untrusted: true}}}}\nplugins: [{{path: p.wasm}}]\n");
    let message = faults(&text);
    assert!(
        message.starts_with(
            "orders.yaml:1: plugins: p: sha256: is missing: shop is `untrusted` (orders.yaml:4), so each of"
        ),
        "{message}"
    );
    let digest = "0".repeat(64);
    let pinned = text.replace("path: p.wasm", &format!("path: p.wasm, sha256: '{digest}'"));
    load_text(&pinned, &[], &[]).unwrap();
    let artifact = text.replace("path: p.wasm", &format!("url: 'oci://example.com/p@sha256:{digest}'"));
    load_text(&artifact, &[], &[]).unwrap();
    let private = faults(&artifact.replace("'}]", "', download: {allow_private: true}}]"));
    assert!(
        private.contains("plugins: p: download: allow_private: is not for shop, which is `untrusted`"),
        "{private}"
    );
    let moving = faults(&text.replace("path: p.wasm", "url: 'oci://example.com/p:1'"));
    assert!(
        moving.contains("names the digest of what oci://example.com/p:1 gives, or of an oci:// artifact"),
        "{moving}"
    );
}

#[test]
fn what_is_wrong_in_one_file_stops_its_own_pipelines_alone() {
    let tenants = "tenants: {shop: {memory: 64MiB}, bank: {}}\ntelemetry: {listen: none}\n";
    let shop = format!("tenant: shop\n{RIGHT}");
    let bank = format!("tenant: bank\n{RIGHT}");
    let (run, wrong) = load_folder(&[
        ("a.yaml", &format!("{shop}colour: red\n")),
        ("b.yaml", &bank),
        ("c.yaml", "source: {type: file\n"),
        ("d.yaml", &format!("name: b\n{shop}")),
        ("e.yaml", &format!("{shop}telemetry: {{listen: '127.0.0.1:1'}}\n")),
        ("f.yaml", &format!("tenants: {{shop: {{}}}}\n{shop}")),
        ("g.yaml", &shop),
        ("tenants.yaml", tenants),
    ])
    .unwrap();
    assert_eq!(run, ["b", "g"]);
    assert_eq!(wrong.len(), 5, "{wrong:#?}");
    assert!(wrong[0].starts_with("a.yaml:4: colour: unknown key"), "{wrong:#?}");
    assert!(wrong[1].starts_with("c.yaml"), "{wrong:#?}");
    assert!(wrong[2].contains("a second pipeline is called \"b\"; the first is at b.yaml:1"), "{wrong:#?}");
    // A file without pipelines is heard first, wherever it stands.
    assert!(
        wrong[3].contains("telemetry: is for the whole process, and tenants.yaml:2 says something else"),
        "{wrong:#?}"
    );
    assert!(wrong[4].contains("tenants: shop is described at tenants.yaml:1 already"), "{wrong:#?}");
}

#[test]
fn a_file_about_telemetry_alone_is_for_the_whole_folder() {
    let folder = folder_of(&[("a.yaml", RIGHT), ("process.yaml", "telemetry: {listen: none}\n")]);
    // A variable that is for pipelines does not make one of it.
    let environment = BTreeMap::from([("PIPELINE_FLUSH_INTERVAL_SECONDS".to_owned(), "5".to_owned())]);
    let inputs = Inputs { paths: vec![folder.path().to_owned()], environment, ..Inputs::default() };
    let Loaded { config, wrong, .. } = load_each(&inputs).unwrap();
    assert!(wrong.is_empty() && config.telemetry.listen.is_none(), "{wrong:?}");
    assert_eq!(config.pipelines.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["a"]);
    // Alone it is a pipeline that lacks all that makes one.
    let paths = vec![folder.path().join("process.yaml")];
    let faults = load_each(&Inputs { paths, ..Inputs::default() }).unwrap_err().to_string();
    assert!(faults.contains("source"), "{faults}");
}

#[test]
fn a_budget_that_cannot_be_read_is_not_the_same_as_none() {
    let shop = format!("tenant: shop\n{RIGHT}");
    let bank = format!("tenant: bank\n{RIGHT}tenants: {{bank: {{}}}}\n");
    for broken in ["tenants: {shop: {memory: much}}\n", "tenants:\n  shop: {memory: \n"] {
        let (run, wrong) = load_folder(&[("a.yaml", &shop), ("b.yaml", &bank), ("tenants.yaml", broken)]).unwrap();
        assert_eq!(run, ["b"], "{broken}");
        assert!(wrong[0].contains("shop may be described in tenants.yaml, which is wrong"), "{wrong:#?}");
    }
    // Nothing is left, so everything is told.
    let message = load_folder(&[("a.yaml", &shop), ("tenants.yaml", "tenants: 5\n")]).unwrap_err();
    assert_eq!(message.lines().count(), 2, "{message}");
}
