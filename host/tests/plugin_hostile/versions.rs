//! Plugins and hosts of different versions: what was built once runs for ever, and what does not fit is told in words.

use std::{
    fs,
    path::{Path, PathBuf},
};

use arrow_array::{Array as _, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use fs_data_sink::{
    config::{Access, BucketGrant, BucketStore, PluginConfig, Secret, TableBucket},
    plugin::{ChainOutput, FlushReason},
};
use serde_json::json;
use wit_component::{OutputToString, WitPrinter};
use wit_parser::Resolve;

use crate::{
    heard::Heard,
    loading::refusal,
    made::{Made, file},
    support::{batch, hostile, numbers, open, schema, schema_stream},
};

/// Set, it lets the test below write a lock file that is not there yet.
const WRITE_LOCK: &str = "FS_DATA_SINK_LOCK_WIT";

/// A path of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The plugin API and the drafts that it uses, without comments. WASI 0.2 itself does not change.
fn interfaces() -> (String, String) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(repository("wit")).unwrap();
    let version = resolve.packages[package].name.version.as_ref().unwrap().to_string();
    let is_draft = |name: &str| ["logging", "config", "keyvalue"].contains(&name);
    let mut drafts: Vec<_> = resolve.packages.iter().filter(|(_, other)| is_draft(&other.name.name)).collect();
    drafts.sort_by_key(|(_, other)| other.name.to_string());
    let drafts: Vec<_> = drafts.into_iter().map(|(id, _)| id).collect();
    let mut printer = WitPrinter::new(OutputToString::default());
    printer.emit_docs(false).print(&resolve, package, &drafts).unwrap();
    (version, printer.output.to_string())
}

/// Scenario: `wit/` is read as whoever builds a plugin reads it.
/// Guarantees: what plugins were built for does not change under them.
#[test]
fn an_interface_that_changes_gets_a_new_version() {
    let (version, found) = interfaces();
    let path = repository(&format!("wit/lock/{version}.wit"));
    if !path.exists() && std::env::var_os(WRITE_LOCK).is_some() {
        fs::write(&path, &found).unwrap();
    }
    let locked = fs::read_to_string(&path).unwrap_or_else(|_| {
        panic!(
            "the plugin API has the new version {version}: run `{WRITE_LOCK}=1 make unit` once, which writes \
             wit/lock/{version}.wit, and add plugins that are built for it to plugins/golden/{version}"
        )
    });
    let differs = found.lines().zip(locked.lines()).find(|(found, locked)| found != locked);
    assert!(
        found == locked,
        "wit/ has changed, but still calls itself {version}: plugins that exist would not fit any more. First difference \
         (now, locked): {differs:?}. New functions of imported interfaces and new interfaces make a new 0.1.x, everything else \
         0.2.0 (wit/README.md, Versions): say so in `package` of wit/plugin.wit and in API_VERSION of \
         host/src/plugin/version.rs. A version that was not released yet may be locked anew: delete wit/lock/{version}.wit \
         and run `{WRITE_LOCK}=1 make unit`"
    );
}

#[test]
fn every_version_that_was_locked_has_plugins() {
    let mut count = 0;
    for lock in fs::read_dir(repository("wit/lock")).unwrap() {
        let lock = lock.unwrap().path();
        let version = lock.file_stem().unwrap().to_str().unwrap().to_owned();
        for name in ["plugin", "stateful", "lookup"] {
            let path = repository(&format!("plugins/golden/{version}/{name}.wasm"));
            assert!(path.is_file(), "{} is missing: build plugins for this version once and keep them", path.display());
        }
        count += 1;
    }
    assert!(count > 0);
}

/// A plugin of 0.1.0 with the column that it adds.
fn golden(name: &str, column: &str, column_type: DataType) -> PluginConfig {
    let mut fields: Vec<_> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(column, column_type, column == "name"));
    let config = json!({"schema": schema_stream(&Schema::new(fields))});
    let mut plugin =
        PluginConfig { path: repository(&format!("plugins/golden/0.1.0/{name}.wasm")), ..hostile(&config) };
    plugin.grants.config = vec![("greeting".to_owned(), Secret::new("good day"))];
    plugin
}

/// The even rows of a batch of ten; 7 was refused.
fn even_rows(output: &ChainOutput) -> &RecordBatch {
    let [(_, rejection)] = output.rejected.as_slice() else { panic!("{:?}", output.rejected) };
    assert_eq!((rejection.code.as_str(), rejection.message.as_str()), ("seven", "7 is refused"));
    assert_eq!(rejection.rows, [7]);
    let [batch] = output.batches.as_slice() else { panic!("{:?}", output.batches) };
    assert_eq!(numbers(&batch.rows), [0, 2, 4, 6, 8]);
    &batch.rows
}

/// The numbers of the column that was added.
fn added(rows: &RecordBatch) -> &[i64] {
    rows.column(rows.num_columns() - 1).as_any().downcast_ref::<Int64Array>().unwrap().values()
}

#[tokio::test]
async fn a_plugin_of_0_1_0_runs_as_it_did() {
    let (heard, _listening) = Heard::listen();
    let mut chain = open(&[golden("plugin", "twice", DataType::Int64)]).await.unwrap();
    let output = chain.process(batch()).await.unwrap();
    assert_eq!(added(even_rows(&output)), [0, 4, 8, 12, 16]);
    assert!(chain.flush(FlushReason::Checkpoint).await.unwrap().batches.is_empty());
    chain.close().await;
    for words in ["good day with a schema of", "batch 0 kept 5 of 10"] {
        assert!(heard.lines().iter().any(|line| line.contains(words)), "{words}: {:#?}", heard.lines());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_with_state_of_0_1_0_goes_on_as_it_did() {
    let plugin = golden("stateful", "total", DataType::Int64);
    let mut first = open(std::slice::from_ref(&plugin)).await.unwrap();
    assert_eq!(added(even_rows(&first.process(batch()).await.unwrap())), [0, 2, 6, 12, 20]);
    first.flush(FlushReason::Checkpoint).await.unwrap();
    let states = first.snapshot().await.unwrap();
    assert_eq!(states[0].bytes.as_ref(), 20_i64.to_le_bytes());
    let mut second = open(&[plugin]).await.unwrap();
    second.restore(states).await.unwrap();
    assert_eq!(added(even_rows(&second.process(batch()).await.unwrap())), [20, 22, 26, 32, 40]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_looks_up_of_0_1_0_finds_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.csv");
    fs::write(&path, "n,name\n0,zero\n4,four\n8,eight\n").unwrap();
    let value = Some("name".to_owned());
    let store = BucketStore::Table(TableBucket { path, key: "n".to_owned(), value, memory_bytes: 1 << 20 });
    let mut plugin = golden("lookup", "name", DataType::Utf8);
    plugin.grants.keyvalue = vec![BucketGrant {
        bucket: "names".to_owned(),
        access: Access::Read,
        store,
        value_bytes: 1 << 10,
        timeout: std::time::Duration::from_secs(5),
        keys_per_call: 100,
    }];
    let output = open(&[plugin]).await.unwrap().process(batch()).await.unwrap();
    let rows = even_rows(&output);
    let names = rows.column(rows.num_columns() - 1).as_any().downcast_ref::<StringArray>().unwrap();
    let names: Vec<_> = (0..names.len()).map(|row| names.is_valid(row).then(|| names.value(row))).collect();
    assert_eq!(names, [Some("zero"), None, Some("four"), None, Some("eight")]);
}

#[test]
fn another_version_of_the_api_is_named() {
    let (plugin, _folder) = Made { version: "0.2.0", ..Made::default() }.plugin();
    let message = refusal(plugin);
    assert!(message.contains("was built for fs-data-sink:plugin@0.2.0; this host serves 0.1.x."), "{message}");
    let (plugin, _folder) = file(&wat::parse_str("(component)").unwrap());
    let message = refusal(plugin);
    assert!(message.contains("does not export fs-data-sink:plugin/transform@0.1.0"), "{message}");
}

#[tokio::test]
async fn a_later_patch_release_of_the_api_is_served() {
    let (plugin, _folder) = Made { version: "0.1.9", ..Made::default() }.plugin();
    // It loads and starts; that it then traps in `open` is how these components are made.
    let message = open(&[plugin]).await.unwrap_err().to_string();
    assert!(message.contains("trapped in `open`"), "{message}");
}

#[tokio::test]
async fn a_later_patch_release_that_has_more_is_told_in_words() {
    let import = r#"(import "fs-data-sink:plugin/batches@0.1.9" "[method]batch.sort" (func (param i32) (result i32)))"#;
    let sorts = Made {
        version: "0.1.9",
        wit_change: (
            "        num-rows: func() -> u32;",
            "        num-rows: func() -> u32;\n        sort: func() -> u32;",
        ),
        imports: import,
        ..Made::default()
    };
    let (plugin, _folder) = sorts.plugin();
    let message = refusal(plugin);
    assert!(
        message.contains(
            "was built for fs-data-sink:plugin@0.1.9 and imports `batch.sort` of `batches`, which this host does not have: it \
             serves 0.1.0. Use a newer release of fs-data-sink, or rebuild the plugin with an SDK for 0.1.0"
        ),
        "{message}"
    );
    // Against the rules of 0.1, and done elsewhere all the same: one more case of an enum.
    let grown = ("        checkpoint,\n", "        checkpoint,\n        pause,\n");
    let (plugin, _folder) = Made { version: "0.1.9", wit_change: grown, ..Made::default() }.plugin();
    let message = open(&[plugin]).await.unwrap_err().full_message();
    assert!(
        message.contains("was built for fs-data-sink:plugin@0.1.9 and does not fit 0.1.0, which this host serves"),
        "{message}"
    );
}

#[test]
fn a_plugin_for_another_wasi_is_told_so() {
    let wit = "package wasi:clocks@0.3.0;
interface monotonic-clock { now: func() -> u64; }
world later { include fs-data-sink:plugin/plugin@0.1.0; import monotonic-clock; }";
    let imports = r#"(import "wasi:clocks/monotonic-clock@0.3.0" "now" (func (result i64)))"#;
    let (plugin, _folder) = Made { world: "later", wit, imports, ..Made::default() }.plugin();
    let message = refusal(plugin);
    assert!(
        message
            .contains("imports wasi:clocks/monotonic-clock@0.3.0, but this host serves WASI 0.2: rebuild the plugin"),
        "{message}"
    );
}
