//! Merging small files: the same rows before and after, whoever is killed on the way and whoever works beside it.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader, Seen},
    program::{Configuration, PARTITION_BY, Workspace, end, finish, hdfs_sink, kafka_source, local_sink, s3_sink},
    records::{PARTITIONS, Random, Records},
    services::{
        hdfs::{Hdfs, Way, superuser},
        process::{Ended, Process, Signal},
    },
};
use serde_json::json;

use crate::shared::{FAIL_POINT, Feed, LONG, SHORT, ensure_all_there, hdfs, kafka, s3, say, scenario, seed, unique};

/// Moments of a merge, in their order, and how often each is passed before the process ends there.
const POINTS: [&str; 10] = [
    "merge_claimed:1",
    "merge_staged:1",
    "merge_recorded:1",
    "merge_safe:1",
    "merge_deleted_one:1",
    "merge_deleted_one:7",
    "merge_deleted:1",
    "merge_visible:1",
    "merge_finished:1",
    "merge_recorded:2",
];

/// A process that works is killed at most so long after its first merge.
const WORK_MS_MAX: u64 = 150;

/// What the issue allows a merging process: 300 MiB.
const PEAK_KIB_MAX: u64 = 300 << 10;

/// Rows in each small file.
const ROWS_A_FILE: u64 = 20;

/// Where small files are.
#[derive(Clone, Copy)]
enum Place {
    /// A bucket.
    S3,
    /// A folder.
    Local,
    /// HDFS, by either way.
    Hdfs(&'static Hdfs, Way),
}

/// Small files to be merged by a process that is killed again and again.
struct Trial {
    /// Where.
    place: Place,
    /// Commits, each with a file a directory.
    commits: u64,
    /// Directories.
    directories: u64,
    /// How often it is killed.
    kills: u32,
    /// `merge_visibility`.
    visibility: &'static str,
}

/// Record `number`, and its row. Numbers, a text that repeats, one that does not, and a list.
fn line(number: u64, directories: u64) -> (String, String) {
    let (part, note) = (format!("p{:03}", number % directories), format!("note {} of {number}", number * 7_919));
    let tags = [number % 3, number % 5];
    let written = json!({"id": number, "note": note, "part": part, "tags": tags, "kind": format!("k{}", number % 11)});
    let row = json!({"id": number, "kind": format!("k{}", number % 11), "note": note, "part": part, "tags": tags});
    (written.to_string() + "\n", row.to_string())
}

/// A lake of a trial.
struct Small {
    /// Where it is.
    place: Place,
    /// Prefix, folder or base path.
    root: String,
    /// Where it may be copied to.
    scratch: PathBuf,
}

impl Small {
    /// The sink of its configuration.
    fn sink(&self) -> anyhow::Result<String> {
        Ok(match self.place {
            Place::S3 => s3_sink(s3()?.access(), &self.root),
            Place::Local => local_sink(&PathBuf::from(&self.root)),
            Place::Hdfs(hdfs, way) => hdfs_sink(&hdfs.url(way), &self.root, &superuser()),
        })
    }

    /// As other programs see it.
    fn lake(&self) -> anyhow::Result<Lake<'_>> {
        Ok(match self.place {
            Place::S3 => Lake::S3(s3()?, &self.root),
            Place::Local => Lake::Local(Path::new(&self.root)),
            Place::Hdfs(hdfs, _) => Lake::Hdfs(hdfs, &self.root),
        })
    }

    /// All rows, as DuckDB reads them.
    fn read(&self) -> anyhow::Result<Seen> {
        self.lake()?.read(Reader::DuckDb, &["part"], &self.scratch)
    }

    /// Every file below our folder that is not visible yet.
    fn waiting(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.lake()?.list()?.into_iter().filter(|name| name.contains("/merging/")).collect())
    }
}

/// A checksum of the sorted rows.
fn checksum(seen: &Seen) -> anyhow::Result<u64> {
    let text = fs::read_to_string(&seen.rows)?;
    let mut rows: Vec<&str> = text.lines().collect();
    rows.sort_unstable();
    let mut hasher = DefaultHasher::new();
    rows.hash(&mut hasher);
    Ok(hasher.finish())
}

/// The most memory that a process has had, in KiB, while it still runs.
fn peak_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Runs the command; how it ended, and the most memory that it was seen with.
fn compact(workspace: &Workspace, kill_after: Option<u64>) -> anyhow::Result<(Ended, u64, String)> {
    let mut process = workspace.start(&["compact", "pipeline.yaml", "--all"])?;
    let (mut peak, began, mut first) = (0, Instant::now(), None);
    loop {
        peak = peak.max(peak_kib(&process));
        if let Some(ended) = process.ended()? {
            return Ok((ended, peak, process.log()));
        }
        if let Some(after_ms) = kill_after {
            if first.is_none() && process.log().contains(" files, ") {
                first = Some(Instant::now());
            }
            if first.is_some_and(|first| first.elapsed() >= Duration::from_millis(after_ms)) {
                return Ok((process.kill()?, peak, process.log()));
            }
        }
        ensure!(began.elapsed() < LONG, "compact takes too long\n{}", process.log_tail());
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a process went through that was killed again and again.
#[derive(Default)]
struct Killed {
    /// Fail points at which it ended.
    met: BTreeSet<&'static str>,
    /// How often it ended at one of them.
    at_points: u32,
    /// How often it was killed at a random moment.
    at_random: u32,
    /// The most memory that it was seen with, in KiB.
    peak: u64,
}

/// Runs the command until it was killed so often: every other time at the next fail point, else at a random moment. Some runs
/// end before that; twice as many are tried at most.
fn kill_again_and_again(workspace: &mut Workspace, kills: u32) -> anyhow::Result<Killed> {
    let seed = seed();
    let (mut random, mut all) = (Random::new(seed), Killed::default());
    for (kill, point) in (0..2 * kills).zip(POINTS.iter().copied().flat_map(|point| [point; 2]).cycle()) {
        if all.at_points + all.at_random >= kills {
            break;
        }
        let kill_after = (kill % 2 == 1).then(|| random.below(WORK_MS_MAX));
        workspace.set("FS_DATA_SINK_FAIL_POINT", if kill_after.is_some() { "none" } else { point });
        let (ended, peak, log) = compact(workspace, kill_after)?;
        all.peak = all.peak.max(peak);
        match ended {
            FAIL_POINT => {
                all.met.insert(point);
                all.at_points += 1;
            }
            Ended::Signal(9) => all.at_random += 1,
            Ended::Code(0) => {}
            other => anyhow::bail!("seed {seed}, kill {kill}, {point}: {other:?}\n{log}"),
        }
    }
    Ok(all)
}

/// Makes small files, merges them with a process that is killed again and again, and compares.
fn survive(name: &str, trial: &Trial) -> anyhow::Result<()> {
    scenario(name, |workspace| {
        let Trial { place, commits, directories, kills, visibility } = *trial;
        let root = match place {
            Place::Local => workspace.path().join("lake").display().to_string(),
            Place::S3 => unique(name),
            Place::Hdfs(..) => format!("/lakes/{}", unique(name)),
        };
        let count = commits * directories * ROWS_A_FILE;
        let records: String = (0..count).map(|number| line(number, directories).0).collect();
        workspace.write("in.ndjson", records)?;
        let small = Small { place, root, scratch: workspace.path().to_owned() };
        let source = format!(
            "  type: file\n  paths: [in.ndjson]\n  batch_size: {}\n  batch_timeout: 60s\n",
            directories * ROWS_A_FILE
        );
        // A month, so that a run over a full hour still merges all.
        let sink =
            small.sink()? + "  partition_by: [part]\n  merge_period: month\n  merge_visibility: " + visibility + "\n";
        let pipeline = "  flush_interval_batches: 1\n  lanes: 1\n".to_owned();
        let configuration = Configuration { pipeline, ..Configuration::new("small", source, sink) };
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let writing = Instant::now();
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        let writing = writing.elapsed();
        let before = small.read()?;
        ensure!(before.files >= commits * directories, "{} files are too few", before.files);
        let expected =
            Expected::new(Box::new(move || Box::new((0..count).map(move |number| line(number, directories).1))));
        before.compare(&expected)?.expect_exact()?;
        let (sum, files) = (checksum(&before)?, before.files);
        let Killed { met, at_points, at_random, mut peak } = kill_again_and_again(workspace, kills)?;
        workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
        let merging = Instant::now();
        let (ended, memory, log) = compact(workspace, None)?;
        ensure!(ended == Ended::Code(0), "{ended:?}\n{log}");
        peak = peak.max(memory);
        let after = small.read()?;
        say(&format!(
            "{name}: {files} files became {}; {at_points} kills at {} of {} points, {at_random} besides; {} s to write, {} ms for the last \
             run; peak {} MiB",
            after.files,
            met.len(),
            POINTS.len(),
            writing.as_secs(),
            merging.elapsed().as_millis(),
            peak >> 10
        ));
        after.compare(&expected)?.expect_exact()?;
        ensure!(checksum(&after)? == sum, "the checksum of the sorted rows differs");
        ensure!(after.files == directories, "{} files are left of {directories} directories", after.files);
        ensure!(after.types == before.types, "types differ: {:?} and {:?}", after.types, before.types);
        ensure!(small.waiting()?.is_empty(), "left in our folder: {:?}", small.waiting()?);
        ensure!(peak > 0 && peak < PEAK_KIB_MAX, "a peak of {peak} KiB");
        ensure!(
            met.len() * 2 > POINTS.len() && at_random > 0,
            "few points were met: {met:?}, {at_random} kills besides"
        );
        // Where there is as much to merge as in the long trials, every kill finds work.
        ensure!(kills < 50 || at_points + at_random == kills, "{at_points} and {at_random} kills of {kills}");
        let words = ["the store is as the ledger says"];
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &words)?;
        workspace.run(&["compact", "pipeline.yaml", "--all"], SHORT)?.expect(0, &["pipeline small: nothing was due"])
    })
}

/// Scenario: small files on S3 are merged by a process that is killed between every two steps and at random moments.
/// Guarantees: the same rows before and after, one file a directory, nothing left behind, bounded memory, the ledger agrees.
#[test]
fn killed_merges_keep_every_row_on_s3() -> anyhow::Result<()> {
    let trial = Trial { place: Place::S3, commits: 16, directories: 40, kills: 24, visibility: "doubled" };
    survive("merge-s3", &trial)
}

/// Scenario: the same where the old files go first.
/// Guarantees: the same: what is missing for a moment comes back after any kill.
#[test]
fn killed_merges_that_delete_first_keep_every_row_on_s3() -> anyhow::Result<()> {
    let trial = Trial { place: Place::S3, commits: 10, directories: 40, kills: 20, visibility: "missing" };
    survive("merge-s3-missing", &trial)
}

/// Scenario: the same on a local folder.
/// Guarantees: the same for files that are renamed into place.
#[test]
fn killed_merges_keep_every_row_on_a_local_folder() -> anyhow::Result<()> {
    // Many directories, since a merge takes a few milliseconds here: no run before the last may come to the end.
    let trial = Trial { place: Place::Local, commits: 3, directories: 400, kills: 20, visibility: "doubled" };
    survive("merge-local", &trial)
}

/// Scenario: the same on HDFS, by its RPC.
/// Guarantees: the same.
#[test]
fn killed_merges_keep_every_row_on_hdfs() -> anyhow::Result<()> {
    let trial = Trial {
        place: Place::Hdfs(hdfs()?, Way::Native),
        commits: 8,
        directories: 30,
        kills: 20,
        visibility: "missing",
    };
    survive("merge-hdfs", &trial)
}

/// Scenario: the same on HDFS, by WebHDFS.
/// Guarantees: the same for our own client.
#[test]
fn killed_merges_keep_every_row_on_webhdfs() -> anyhow::Result<()> {
    let trial =
        Trial { place: Place::Hdfs(hdfs()?, Way::Web), commits: 6, directories: 24, kills: 20, visibility: "doubled" };
    survive("merge-webhdfs", &trial)
}

/// Scenario: 5,000 small files on S3, and 50 kills.
/// Guarantees: what the smaller form does, at the size that was promised.
#[test]
#[ignore = "takes minutes; `make soak` runs it"]
fn five_thousand_files_on_s3() -> anyhow::Result<()> {
    survive(
        "merge-5000-s3",
        &Trial { place: Place::S3, commits: 50, directories: 100, kills: 50, visibility: "doubled" },
    )
}

/// Scenario: 5,000 small files on HDFS, and 50 kills.
/// Guarantees: the same.
#[test]
#[ignore = "takes minutes; `make soak` runs it"]
fn five_thousand_files_on_hdfs() -> anyhow::Result<()> {
    let place = Place::Hdfs(hdfs()?, Way::Native);
    survive("merge-5000-hdfs", &Trial { place, commits: 50, directories: 100, kills: 50, visibility: "missing" })
}

/// Merges beside a running pipeline that merges too, with two commands at once, while records keep coming.
fn beside_a_writer(name: &'static str, visibility: &str) -> anyhow::Result<()> {
    scenario(name, |workspace| {
        let (kafka, prefix) = (kafka()?, unique(name));
        let records = Records { seed: 31, topic: unique(name) };
        kafka.create_topic(&records.topic, PARTITIONS)?;
        let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
        let sink = s3_sink(s3()?.access(), &prefix)
            + PARTITION_BY
            + "  merge_enabled: true\n  merge_period: month\n  merge_on_flush: true\n  merge_visibility: "
            + visibility
            + "\n";
        let pipeline = "  commit_interval: 1s\n".to_owned();
        let configuration =
            Configuration { pipeline, ..Configuration::new(name, source, sink) }.with_records_schema_and_plugins();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let feed = Feed::start(kafka, &records, 0, 500)?;
        let mut writer = workspace.start(&["run", "pipeline.yaml"])?;
        writer.wait_for_text("small files were merged", LONG).with_context(|| writer.log_tail())?;
        for _ in 0..3 {
            let both = [(), ()].map(|()| workspace.start(&["compact", "pipeline.yaml", "--all"]));
            for process in both {
                finish(process?, LONG)?.expect(0, &["pipeline "])?;
            }
            // In the middle of whatever the writer does.
            writer.kill()?;
            writer = workspace.start(&["run", "pipeline.yaml"])?;
            writer.wait_for_text("generation committed", LONG).with_context(|| writer.log_tail())?;
        }
        let count = feed.finish()?;
        ensure_all_there(kafka, &records, count)?;
        end(writer, Signal::Terminate, SHORT)?.expect(0, &[])?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        workspace.run(&["compact", "pipeline.yaml", "--all"], LONG)?.expect(0, &[])?;
        let lake = Lake::S3(s3()?, &prefix);
        let seen = lake.read(Reader::PyArrow, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, count))?.expect_exact()?;
        let words = ["the store is as the ledger says"];
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &words)
    })
}

/// Scenario: a pipeline writes to S3 and merges after its commits, while two commands merge its files at once, again and again;
/// and the pipeline is killed each time.
/// Guarantees: every row exactly once, and the ledger agrees with the store.
#[test]
fn merges_beside_a_writer_and_two_compactors() -> anyhow::Result<()> {
    beside_a_writer("merge-beside", "doubled")
}

/// Scenario: the same where the old files go first.
/// Guarantees: the same.
#[test]
fn merges_that_delete_first_beside_a_writer() -> anyhow::Result<()> {
    beside_a_writer("merge-beside-missing", "missing")
}
