//! From nothing to a plugin in a pipeline, in each language that there is an SDK for. Where a toolchain is not to be had, tests/setup.sh
//! has said so, and there is nothing to show.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Lake, Reader, run_python},
    program::{Workspace, repository},
    services::download,
};
use serde_json::{Value, json};

use crate::{
    plugin_outside::reaches_what_it_is_granted,
    shared::{LONG, SHORT, say, scenario},
};

/// What `plugin new`, `build`, `test`, `inspect` and `bench` say of a plugin, and what a pipeline makes of it.
fn from_nothing_to_a_pipeline(
    workspace: &Workspace,
    language: &str,
    prepare: impl FnOnce(&Workspace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let new = ["plugin", "new", "--language", language, "big-amounts"];
    workspace.run(&new, SHORT)?.expect(0, &["cd big-amounts"])?;
    workspace.run(&new, SHORT)?.expect(2, &["big-amounts is there and not empty"])?;
    prepare(workspace)?;
    workspace
        .run(&["plugin", "build", "big-amounts"], 3 * LONG)?
        .expect(0, &["big_amounts.wasm: big-amounts 0.1.0"])?;
    let whole = "5 rows in, 3 out, 1 filtered, 1 refused";
    workspace.run(&["plugin", "test", "big-amounts"], LONG)?.expect(0, &["is_large", whole, "as expected in"])?;
    let inspected = workspace.run(&["plugin", "inspect", "big-amounts/big_amounts.wasm"], LONG)?;
    inspected
        .expect(0, &["says which amounts are large", "filter, enrich", "what counts as large", "yes: clocks stand"])?;
    // A wrong config is told at its line, by the schema that the plugin has from its folder.
    let file = "big-amounts/big_amounts.wasm";
    let input = "big-amounts/test/rows.ndjson";
    let wrong = ["plugin", "test", file, "--input", input, "--config", "{column: amount, minimum: much}"];
    workspace.run(&wrong, LONG)?.expect(2, &["minimum: expected a number, found the text \"much\""])?;
    let missing = ["plugin", "test", file, "--input", input, "--config", "{column: price, minimum: 1}"];
    workspace.run(&missing, LONG)?.expect(2, &["price", "id, amount"])?;
    // What is expected no longer comes out.
    let expected = workspace.path().join("big-amounts/test/expected.ndjson");
    fs::write(&expected, fs::read_to_string(&expected)?.replacen("\"is_large\":false", "\"is_large\":true", 1))?;
    let config = ["--config", "big-amounts/test/config.yaml", "--input", input];
    let test = ["plugin", "test", file, "--expect", "big-amounts/test/expected.ndjson"];
    let differs = workspace.run(&[&test[..], &config].concat(), LONG)?;
    differs.expect(1, &["line 1 differs:", "is_large: expected true, got false"])?;
    workspace.run(&[&test[..], &config, &["--update"]].concat(), LONG)?.expect(0, &["4 lines written"])?;
    let bench = ["plugin", "bench", file, "--seconds", "1"];
    let told = workspace.run(&[&bench[..], &config].concat(), LONG)?;
    told.expect(0, &["empty plugin"])?;
    say(&told.output);
    in_a_pipeline(workspace)
}

/// Runs the template's pipeline as it was written.
fn in_a_pipeline(workspace: &Workspace) -> anyhow::Result<()> {
    let folder = workspace.path().join("big-amounts");
    let run = ["run", "big-amounts/pipeline.yaml", "--set", "telemetry.listen=none"];
    workspace.run(&run, LONG)?.expect(0, &[])?;
    let lake = [workspace.path().join("lake"), folder.join("lake")].into_iter().find(|lake| lake.is_dir());
    let lake = lake.context("no lake")?;
    let rows = Lake::Local(&lake).read(Reader::PyArrow, &[], workspace.path())?.rows;
    let rows = fs::read_to_string(rows)?;
    ensure!(rows.lines().count() == 3 && rows.contains("is_large"), "{rows}");
    let letters = Lake::Local(&lake).dead_letters("big-amounts")?;
    ensure!(letters.len() == 1, "{} dead letters", letters.len());
    Ok(())
}

/// Scenario: schemas of every type and of many fields go through the SDKs that have no Arrow library, and pyarrow reads what they write.
/// Guarantees: nothing of a schema is lost or changed, values come back as they were, and what a type cannot hold is refused.
#[test]
fn what_the_sdks_write_of_arrow_is_read_by_pyarrow() -> anyhow::Result<()> {
    scenario("sdk-schemas", |workspace| {
        let node = Command::new("node").arg("--version").output().is_ok_and(|told| told.status.success());
        let order = json!({"repository": repository(), "folder": workspace.path(), "node": node.then_some("node")});
        let told = run_python("sdk_schemas.py", &order, workspace.path())?;
        ensure!(told.trim() == "right", "{told}");
        Ok(())
    })
}

/// Rows with columns of every type go through a plugin that copies, value by value, those that its SDK reads and writes.
/// The SDK reads the schema and writes it anew: what comes out is what went in, or the host would refuse it.
fn all_types_pass(workspace: &Workspace, language: &str, (file, source): (&str, &str)) -> anyhow::Result<()> {
    workspace.run(&["plugin", "new", "--language", language, "copy"], SHORT)?.expect(0, &[])?;
    workspace.write(&format!("copy/{file}"), source)?;
    workspace.write("copy/config-schema.json", "{}")?;
    workspace.run(&["plugin", "build", "copy"], LONG)?.expect(0, &["copy.wasm: copy 0.1.0"])?;
    run_python("all_types.py", &json!({"folder": workspace.path()}), workspace.path())?;
    let test = ["plugin", "test", "copy/copy.wasm", "--input", "all_types.arrows", "--config", "{}", "--json"];
    let finished = workspace.run(&test, LONG)?;
    finished.expect(0, &[])?;
    let told: Value = serde_json::from_str(&finished.output).with_context(|| finished.output.clone())?;
    let mut copies = 0;
    let items = |name: &str| told.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let columns = items("columns").into_iter();
    let types: BTreeMap<_, _> = columns.map(|column| (text(column.get("name")), text(column.get("type")))).collect();
    ensure!(items("rows").len() == 3, "{told}");
    for row in items("rows") {
        let row = row.as_object().context("no row")?;
        for (name, value) in row {
            let Some(original) = name.strip_prefix("copy ") else { continue };
            copies += 1;
            ensure!(row.get(original) == Some(value), "{original}: {:?} was copied as {value}", row.get(original));
            let type_of = |name: &str| types.get(name);
            ensure!(
                type_of(original) == type_of(name),
                "{original}: {:?} became {:?}",
                type_of(original),
                type_of(name)
            );
        }
    }
    // 50 of int32, `meta`, and 23 of the types that there are.
    ensure!(copies == 3 * 74, "{copies} values were copied");
    Ok(())
}

/// Gives the program a folder more in its path.
fn with_path(workspace: &mut Workspace, folder: &Path) {
    let path = std::env::var("PATH").unwrap_or_default();
    workspace.set("PATH", &format!("{}:{path}", folder.display()));
}

/// Scenario: an author makes a plugin in Rust, builds, tests, measures and runs it.
/// Guarantees: the template works as it is written; without the target, the words say what to run.
#[test]
fn a_plugin_in_rust() -> anyhow::Result<()> {
    let toolchain = fs::read_to_string(repository().join("rust-toolchain.toml"))?;
    let toolchain = toolchain.split('"').nth(1).context("no channel in rust-toolchain.toml")?.to_owned();
    let mut look = Command::new("rustc");
    look.args(["--print", "target-libdir", "--target", "wasm32-wasip2"]).env("RUSTUP_TOOLCHAIN", &toolchain);
    let library = String::from_utf8(look.output()?.stdout)?;
    if !Path::new(library.trim()).is_dir() {
        say("no target wasm32-wasip2: a plugin in Rust is not built");
        return Ok(());
    }
    scenario("author-rust", |workspace| {
        workspace.set("RUSTUP_TOOLCHAIN", &toolchain);
        // Dependencies are built once for all runs.
        let target = fs_data_sink_tests::services::cache_folder()?.join("author-rust");
        workspace.set("CARGO_TARGET_DIR", &target.display().to_string());
        from_nothing_to_a_pipeline(workspace, "rust", |_| Ok(()))
    })?;
    scenario("author-rust-without", |workspace| {
        workspace.run(&["plugin", "new", "--language", "rust", "lonely"], SHORT)?.expect(0, &[])?;
        workspace.set("PATH", "/nowhere");
        let words = "rustc is not there: a plugin in Rust needs it; install it from https://rustup.rs";
        workspace.run(&["plugin", "build", "lonely"], SHORT)?.expect(2, &[words])
    })
}

/// Scenario: the same in Python; then a plugin with state, a bucket and a server, which raises an exception at last.
/// Guarantees: the template works as it is written, what is granted is there and nothing else is asked for, and an exception is told with its line.
#[test]
fn a_plugin_in_python() -> anyhow::Result<()> {
    let Ok(tools) = download::componentize() else {
        say("no componentize-py: a plugin in Python is not built");
        return Ok(());
    };
    scenario("author-python", |workspace| {
        workspace.run(&["plugin", "new", "--language", "python", "lonely"], SHORT)?.expect(0, &[])?;
        let words = "componentize-py is not there: a plugin in Python needs it; run `python3 -m venv .venv";
        workspace.run(&["plugin", "build", "lonely"], SHORT)?.expect(2, &[words])?;
        with_path(workspace, &tools);
        from_nothing_to_a_pipeline(workspace, "python", |_| Ok(()))?;
        let source = ("plugin.py", include_str!("plugin_outside/plugin.py"));
        reaches_what_it_is_granted(workspace, "python", source, |_| Ok(()))?;
        let test = ["plugin", "test", "--input", "rows.ndjson", "--pipeline", "fails.yaml#numbers"];
        workspace.run(&test, LONG)?.expect(0, &["of plugin.py)"])
    })
}

/// Scenario: the same in JavaScript.
/// Guarantees: as for Python.
#[test]
fn a_plugin_in_javascript() -> anyhow::Result<()> {
    let Ok(packages) = download::componentize_js() else {
        say("no componentize-js: a plugin in JavaScript is not built");
        return Ok(());
    };
    scenario("author-javascript", |workspace| {
        from_nothing_to_a_pipeline(workspace, "javascript", |workspace| {
            let words = "has no package @bytecodealliance/componentize-js, which makes components of JavaScript: run `npm install`";
            workspace.run(&["plugin", "build", "big-amounts"], SHORT)?.expect(2, &[words])?;
            // What `npm install` would fetch.
            std::os::unix::fs::symlink(&packages, workspace.path().join("big-amounts/node_modules")).map_err(Into::into)
        })?;
        let source = ("plugin.js", include_str!("plugin_outside/plugin.js"));
        reaches_what_it_is_granted(workspace, "javascript", source, |workspace| {
            std::os::unix::fs::symlink(&packages, workspace.path().join("numbers/node_modules")).map_err(Into::into)
        })
    })
}

/// Scenario: the same in C.
/// Guarantees: as for Python; without a compiler, the words say what to install.
#[test]
fn a_plugin_in_c() -> anyhow::Result<()> {
    let sdk = std::env::var("WASI_SDK_PATH").ok();
    if sdk.is_none() && !Path::new("/usr/lib/wasm32-wasi/libc.a").is_file() {
        say("no C library for WebAssembly: a plugin in C is not built");
        return Ok(());
    }
    scenario("author-c", |workspace| {
        if let Some(sdk) = &sdk {
            workspace.set("WASI_SDK_PATH", sdk);
        }
        from_nothing_to_a_pipeline(workspace, "c", |_| Ok(()))?;
        all_types_pass(workspace, "c", ("plugin.c", include_str!("plugin_outside/copy.c")))?;
        reaches_what_it_is_granted(workspace, "c", ("plugin.c", include_str!("plugin_outside/plugin.c")), |_| Ok(()))?;
        // What is printed, and a fault that must not become a wrong value.
        let source = include_str!("plugin_outside/plugin.c").replacen(
            "fds_granted(\"region\", &region);",
            "printf(\"it is %s\\n\", \"printed\"); fds_int(countries, 0);",
            1,
        );
        workspace.write("numbers/plugin.c", format!("#include <stdio.h>\n{source}"))?;
        workspace.run(&["plugin", "build", "numbers"], LONG)?.expect(0, &[])?;
        let test = ["plugin", "test", "--input", "rows.ndjson", "--pipeline", "numbers.yaml#numbers"];
        let told = workspace.run(&test, LONG)?;
        told.expect(1, &["it is printed", "has the format u, and is read as something else", "plugin.c:"])
    })?;
    scenario("author-c-without", |workspace| {
        workspace.run(&["plugin", "new", "--language", "c", "lonely"], SHORT)?.expect(0, &[])?;
        workspace.set("PATH", "/nowhere");
        workspace.set("WASI_SDK_PATH", "/nowhere");
        let words = "clang is not there: a plugin in C needs it; on Debian or Ubuntu run `apt-get install clang-19 lld-19 wasi-libc";
        workspace.run(&["plugin", "build", "lonely"], SHORT)?.expect(2, &[words])
    })
}

/// Scenario: the same in Go.
/// Guarantees: as for Python; without Go, the words say what to install.
#[test]
fn a_plugin_in_go() -> anyhow::Result<()> {
    let told = Command::new("go").args(["env", "GOVERSION"]).output();
    let version = told.map(|told| String::from_utf8_lossy(&told.stdout).into_owned()).unwrap_or_default();
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if minor < Some(24) {
        say("no Go 1.24: a plugin in Go is not built");
        return Ok(());
    }
    scenario("author-go", |workspace| {
        from_nothing_to_a_pipeline(workspace, "go", |_| Ok(()))?;
        all_types_pass(workspace, "go", ("plugin.go", include_str!("plugin_outside/copy.go")))?;
        reaches_what_it_is_granted(workspace, "go", ("plugin.go", include_str!("plugin_outside/plugin.go")), |_| {
            Ok(())
        })?;
        let source = include_str!("plugin_outside/plugin.go").replacen(
            "region, _ :=",
            "println(\"it is printed\"); countries.Int(0); region, _ :=",
            1,
        );
        workspace.write("numbers/plugin.go", source)?;
        workspace.run(&["plugin", "build", "numbers"], LONG)?.expect(0, &[])?;
        let test = ["plugin", "test", "--input", "rows.ndjson", "--pipeline", "numbers.yaml#numbers"];
        let told = workspace.run(&test, LONG)?;
        told.expect(1, &["it is printed", "has the format u, and is read as something else"])
    })?;
    scenario("author-go-without", |workspace| {
        workspace.run(&["plugin", "new", "--language", "go", "lonely"], SHORT)?.expect(0, &[])?;
        workspace.set("PATH", "/nowhere");
        let words = "go is not there: a plugin in Go needs it; install Go 1.24 or newer";
        workspace.run(&["plugin", "build", "lonely"], SHORT)?.expect(2, &[words])
    })
}
