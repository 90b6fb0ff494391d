//! `fs-data-sink plugin test`: rows through a plugin, and what became of them against what is expected.

use std::path::PathBuf;

use clap::Args;

use super::{
    DONE, Ended, FAILED, answer, engine,
    heard::Heard,
    input::Input,
    report, snapshot,
    subject::{Subject, SubjectArguments},
    tell,
    trial::Trial,
};
use crate::{
    cli::watch::{Watch, Which},
    plugin::PluginEngine,
};

/// What `plugin test` takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct TestArguments {
    /// Which plugin, and its rows.
    #[command(flatten)]
    subject: SubjectArguments,
    /// Lines of JSON that are expected: the rows that come out, then what is refused. Exit code 1 where it differs. Of a folder
    /// test/expected.ndjson if nothing else is named.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Write what comes out to the file of --expect.
    #[arg(long)]
    update: bool,
    /// Test again whenever a file changes; a folder is built again.
    #[arg(long, conflicts_with_all = ["update", "json"])]
    watch: bool,
    /// Rows that are shown; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    /// Answer one JSON object.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) async fn run(arguments: &TestArguments) -> Result<u8, Ended> {
    let (heard, engine) = (Heard::listen(), engine()?);
    if !arguments.watch {
        return once(arguments, &engine, &heard).await;
    }
    let watched: Vec<PathBuf> = arguments.subject.watched().into_iter().chain(arguments.expect.clone()).collect();
    loop {
        // What the last test wrote is no change.
        let mut watch = Watch::new(watched.clone(), Which::Sources);
        if let Err(Ended { words, .. }) = once(arguments, &engine, &heard).await {
            tell(&words);
        }
        tell("\nwaiting for a file to change; Ctrl-C ends");
        watch.changed().await;
    }
}

/// One test.
async fn once(arguments: &TestArguments, engine: &PluginEngine, heard: &Heard) -> Result<u8, Ended> {
    let prepared = arguments.subject.prepared()?;
    let subject: Subject = prepared.subject()?;
    let loaded = subject.load(engine).await?;
    let input = Input::read(&prepared, &subject.decode).await?;
    let trial = Trial::run(&loaded, &input).await.map_err(|error| Ended::refused(&error))?;
    let found = snapshot::lines(&trial);
    let of_folder = arguments.subject.folder().map(|folder| folder.join("test/expected.ndjson"));
    let expect = arguments.expect.clone().or(of_folder.filter(|path| arguments.update || path.is_file()));
    if expect.is_none() && arguments.update {
        return Err(Ended::usage("--update: name the file to write: --expect out.ndjson"));
    }
    let mut differences = None;
    if let Some(path) = &expect {
        if arguments.update {
            snapshot::write(path, &found)
                .map_err(|error| Ended::usage(format!("{} cannot be written: {error}", path.display())))?;
            tell(&format!("{} lines written to {}", found.len(), path.display()));
        } else {
            let expected = snapshot::read(path).map_err(Ended::usage)?;
            differences = Some(snapshot::differences(&expected, &found));
        }
    }
    let logs = heard.take();
    if arguments.json {
        answer(&report::as_json(&input, &trial, &logs, differences.as_deref()).to_string());
    } else {
        let rows = if arguments.rows == 0 { usize::MAX } else { arguments.rows };
        answer(report::as_text(&input, &trial, &logs, rows).trim_end());
    }
    let mut code = DONE;
    if let Some(words) = &trial.failed {
        tell(&format!("the plugin failed: {words}"));
        code = FAILED;
    }
    match (&differences, &expect) {
        (Some(differences), Some(path)) if !differences.is_empty() => {
            tell(&format!(
                "not as expected in {}:\n{}\n--update writes what came out there",
                path.display(),
                differences.join("\n")
            ));
            code = FAILED;
        }
        (Some(_), Some(path)) => tell(&format!("as expected in {}", path.display())),
        _ => {}
    }
    Ok(code)
}
