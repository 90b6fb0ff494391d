//! Plugins that are downloaded: from a real registry, encrypted, with a user.

use fs_data_sink_tests::{
    lake::{Lake, Reader},
    program::{Configuration, Workspace, local_sink, plugin},
    services::oci::{OciRegistry, PASSWORD, USER},
};

use crate::shared::{LONG, scenario};

/// A pipeline whose plugin keeps the rows of Germany.
fn pipeline(workspace: &Workspace, lake: &str, plugin: &str) -> anyhow::Result<()> {
    workspace.write("in.ndjson", "{\"country\": \"DE\"}\n{\"country\": \"FR\"}\n{\"country\": \"DE\"}\n")?;
    let source = "  type: file\n  paths: [in.ndjson]\n".to_owned();
    let mut configuration = Configuration::new("downloads", source, local_sink(&workspace.path().join(lake)));
    configuration.schema = "schema:\n  mode: declared\n  fields: [{name: country, type: string}]\n".into();
    configuration.plugins = format!("plugins:\n  - config: {{column: country, values: [DE]}}\n{plugin}");
    workspace.write("pipeline.yaml", configuration.yaml())?;
    Ok(())
}

/// `download`, for a registry and a password.
fn download(registry: &OciRegistry, password: &str, more: &str) -> String {
    let ca = registry.authority().display().to_string();
    format!("    download: {{username: {USER}, password: {password}, ca_file: {ca}{more}}}\n")
}

/// Scenario: a component is pushed to a registry; pipelines name it by `oci://` with its digest, by its tag, and by `https://` with its own
/// SHA-256. Then the registry is killed.
/// Guarantees: all three load it, and what has a digest starts without the registry.
#[test]
fn plugins_come_from_a_registry_and_stay_when_it_is_gone() -> anyhow::Result<()> {
    scenario("downloads", |workspace| {
        let mut registry = OciRegistry::start()?;
        let cache = workspace.path().join("cache").display().to_string();
        workspace.set("FS_DATA_SINK_CACHE", &cache);
        let pushed = registry.push("team/keep", "1.0", &plugin("keep_values"), "application/wasm")?;
        let how = download(&registry, PASSWORD, ", allow_private: true");
        let address = registry.address();
        let digits = pushed.layer.trim_start_matches("sha256:");
        let pinned = format!("    url: oci://{address}/team/keep@{}\n{how}", pushed.manifest);
        let tagged = format!("    url: oci://{address}/team/keep:1.0\n{how}");
        let file =
            format!("    url: https://{address}/v2/team/keep/blobs/{}\n    sha256: {digits}\n{how}", pushed.layer);
        for (lake, plugin) in [("pinned", &pinned), ("tagged", &tagged), ("file", &file)] {
            pipeline(workspace, lake, plugin)?;
            workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
            let rows = Lake::Local(&workspace.path().join(lake)).read(Reader::PyArrow, &[], workspace.path())?.rows;
            let rows = std::fs::read_to_string(rows)?.lines().count();
            anyhow::ensure!(rows == 2, "{lake}: {rows} rows");
        }
        registry.kill()?;
        for (lake, plugin) in [("pinned-again", &pinned), ("file-again", &file)] {
            pipeline(workspace, lake, plugin)?;
            workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        }
        pipeline(workspace, "tagged-again", &tagged)?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(2, &["does not answer"])?;
        Ok(())
    })
}

/// Scenario: everything that can be wrong between a pipeline and a registry.
/// Guarantees: the start is refused in words that say what to do, and no password is told.
#[test]
fn a_registry_that_does_not_give_the_plugin_is_told_in_words() -> anyhow::Result<()> {
    scenario("downloads-wrong", |workspace| {
        let registry = OciRegistry::start()?;
        let cache = workspace.path().join("cache").display().to_string();
        workspace.set("FS_DATA_SINK_CACHE", &cache);
        let pushed = registry.push("team/keep", "1.0", &plugin("keep_values"), "application/wasm")?;
        registry.push("team/picture", "1.0", &plugin("keep_values"), "image/png")?;
        let address = registry.address();
        let url = |what: &str| format!("    url: oci://{address}/team/{what}\n");
        let good = url("keep:1.0");
        let private = ", allow_private: true";
        let right = download(&registry, PASSWORD, private);
        let no_ca = format!("    download: {{username: {USER}, password: {PASSWORD}{private}}}\n");
        let nobody = format!("    download: {{ca_file: {}{private}}}\n", registry.authority().display());
        let unknown = url(&format!("keep@sha256:{}", "0".repeat(64)));
        let another = format!("{}    sha256: {}\n", url(&format!("keep@{}", pushed.manifest)), "0".repeat(64));
        for (plugin, words) in [
            (
                format!("{good}{nobody}"),
                "localhost wants to know who asks; add `download: {username: ..., password: ...}`",
            ),
            (
                format!("{good}{}", download(&registry, "falsch", private)),
                "does not let in who `download` says that we are",
            ),
            (format!("{good}{no_ca}"), "does not answer"),
            (
                format!("{good}{}", download(&registry, PASSWORD, "")),
                "no address of the public internet; add `download: {allow_private: true}`",
            ),
            (format!("{}{right}", url("other:1.0")), "does not exist (status 404)"),
            (format!("{unknown}{right}"), "does not exist (status 404)"),
            (format!("{}{right}", url("picture:1.0")), "is no plugin: its layer is image/png"),
            (format!("{another}{right}"), "but the configuration wants 0000"),
            (
                format!("{good}{right}    limits: {{component_bytes: 1KiB}}\n"),
                "which is more than 1024 (limits.component_bytes)",
            ),
        ] {
            pipeline(workspace, "lake", &plugin)?;
            let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?;
            finished.expect(2, &[words])?;
            anyhow::ensure!(!finished.output.contains(PASSWORD), "the password was told:\n{}", finished.output);
        }
        Ok(())
    })
}
