//! A store whose answers cannot be trusted: lost after the request was carried out, wrong, late, an error where there was none.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, s3_sink},
    services::s3_faults::{Fault, Kind, Plan, S3Faults},
};
use serde_json::json;

use crate::shared::{LONG, SHORT, s3, say, scenario, unique};

/// Rows of a run.
const ROWS: u64 = 16_000;

/// Commits of a run: enough for every fault in turn, and for a snapshot.
const COMMITS: u64 = 70;

/// Enough for old records to be deleted as well.
const COMMITS_MANY: u64 = 140;

/// What may befall any request.
const ANY: [Fault; 6] = [
    Fault::LostAnswer,
    Fault::Refused(503),
    Fault::DoneAndRefused(500),
    Fault::LostRequest,
    Fault::DoneAndRefused(503),
    Fault::Late,
];

/// What else may befall a request that creates: S3's answers about another object or request.
const CONDITIONAL: [Fault; 4] =
    [Fault::Refused(409), Fault::DoneAndRefused(412), Fault::Refused(412), Fault::DoneAndRefused(409)];

/// Kinds of requests whose faults are tried in one run, others that must fail for those to be made, and faults besides
/// those that may befall any.
struct Case {
    /// For messages.
    name: &'static str,
    /// The kinds in question.
    kinds: &'static [Kind],
    /// What else may befall them.
    also: &'static [Fault],
    /// How many good requests come between two faults.
    good_between: usize,
    /// How many commits the run makes.
    commits: u64,
    /// Which of the kinds the run must have made, with every fault.
    met: &'static [Kind],
}

/// Every request of the protocol.
const CASES: [Case; 7] = [
    Case {
        name: "create",
        kinds: &[Kind::Create],
        also: &CONDITIONAL,
        good_between: 2,
        commits: COMMITS,
        met: &[Kind::Create],
    },
    // A record is read where the answer to its creation was no plain yes.
    Case {
        name: "read",
        kinds: &[Kind::Create, Kind::Get],
        also: &[],
        good_between: 1,
        commits: COMMITS,
        met: &[Kind::Get],
    },
    Case { name: "list", kinds: &[Kind::List], also: &[], good_between: 2, commits: COMMITS, met: &[Kind::List] },
    Case {
        name: "upload",
        kinds: &[Kind::BeginUpload, Kind::UploadPart],
        also: &[Fault::Refused(409)],
        good_between: 2,
        commits: COMMITS,
        met: &[Kind::BeginUpload, Kind::UploadPart],
    },
    // A failed completion asks whether the file is there.
    Case {
        name: "complete",
        kinds: &[Kind::CompleteUpload, Kind::Head],
        also: &[Fault::ErrorIn200],
        good_between: 1,
        commits: COMMITS,
        met: &[Kind::CompleteUpload, Kind::Head],
    },
    // There are few of these, so each of them meets one fault after the other, up to the late answer.
    Case {
        name: "clean",
        kinds: &[Kind::Delete, Kind::Put],
        also: &[],
        good_between: 0,
        commits: COMMITS_MANY,
        met: &[Kind::Delete],
    },
    Case {
        name: "every",
        kinds: &[
            Kind::Create,
            Kind::Put,
            Kind::Get,
            Kind::Head,
            Kind::List,
            Kind::BeginUpload,
            Kind::UploadPart,
            Kind::CompleteUpload,
            Kind::Delete,
        ],
        also: &[],
        good_between: 3,
        commits: COMMITS,
        met: &[Kind::Create],
    },
];

/// Scenario: the answers to each kind of request of the protocol are lost after it was carried out, and before; are 500 and 503,
/// carried out or not; 409 and 412 where a record or an upload is made; are late; an error within a 200; then all at once.
/// Guarantees: the run completes by itself, every row exactly once as DuckDB reads it, and the ledger agrees with the store.
#[test]
fn answers_are_lost_wrong_and_late() -> anyhow::Result<()> {
    scenario("ambiguous", |workspace| {
        let text: String = (0..ROWS).map(|number| json!({"id": number}).to_string() + "\n").collect();
        workspace.write("in/rows.ndjson", text)?;
        for case in &CASES {
            run(workspace, case).with_context(|| format!("faults on {}", case.name))?;
        }
        Ok(())
    })
}

/// One run.
fn run(workspace: &Workspace, case: &Case) -> anyhow::Result<()> {
    let (s3, prefix, start) = (s3()?, unique("ambiguous"), Instant::now());
    let faults: Vec<Fault> = case.also.iter().chain(&ANY).copied().collect();
    let plan = Plan { kinds: case.kinds.to_vec(), faults: faults.clone(), good_between: case.good_between };
    let proxy = S3Faults::start(&s3.access().endpoint, plan)?;
    let sink = s3_sink(&s3.access().through(&proxy.endpoint()), &prefix);
    let rows_max = ROWS / case.commits;
    let source = format!("  type: file\n  paths: [\"in/rows.ndjson\"]\n  batch_size: {rows_max}\n");
    let pipeline = "  commit_interval: 10s\n  flush_interval_batches: 1\n".to_owned();
    let mut configuration = Configuration { pipeline, ..Configuration::new("ambiguous", source, sink) };
    workspace.write("pipeline.yaml", configuration.yaml())?;
    workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
    let met = proxy.met();
    for kind in case.met {
        let missed: BTreeSet<&Fault> = faults.iter().filter(|fault| !met.contains_key(&(*kind, **fault))).collect();
        ensure!(missed.is_empty(), "{kind:?} did not meet {missed:?}, so nothing was shown of it: {met:?}");
    }
    let (count, seconds) = (met.values().sum::<u64>(), start.elapsed().as_secs());
    say(&format!("ambiguous: {}: {count} requests met a fault, {seconds} s", case.name));
    // What readers and the ledger see is asked of the server itself.
    configuration.sink = s3_sink(s3.access(), &prefix);
    workspace.write("direct.yaml", configuration.yaml())?;
    workspace.run(&["ledger", "verify", "direct.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])?;
    let lake = Lake::S3(s3, &prefix);
    let foreign: Vec<_> = lake
        .list()?
        .into_iter()
        .filter(|name| !name.starts_with("_fs_data_sink/ambiguous/") && !name.starts_with("ambiguous/"))
        .collect();
    ensure!(foreign.is_empty(), "files that nobody asked for: {foreign:?}");
    let seen = lake.read(Reader::DuckDb, &[], workspace.path())?;
    let expected = Expected::new(Box::new(|| Box::new((0..ROWS).map(|number| json!({"id": number}).to_string()))));
    seen.compare(&expected)?.expect_exact()
}
