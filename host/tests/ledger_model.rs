//! The ledger's protocol under a scheduler that does its worst, with a seed.
//!
//! Three slots run writers over three partitions of numbered records. Each step the scheduler picks a slot and lets it do
//! one request, which may fail before or after it was carried out, get no answer, or be carried out much later, also after
//! its writer is gone. Writers claim each other's partitions, sleep and go on (zombies), crash anywhere, or break off an
//! append and begin anew in the same process with what it knows; uploads expire; snapshots are taken and old records
//! deleted behind them, or only some of them, also while another one loads the ledger. What decides is the code that runs
//! (`commit/ledger/{state,append,load}.rs`); what is modelled is the store and the lane around it.
//!
//! Each partition has the state of a plugin, a fold of its records. Its object is written before the commit that names it, and
//! read at some time after the claim; objects are deleted behind snapshots, and those that no record names by one who lists them
//! first and loads the ledger later.
//!
//! After every step: no record is in two visible files, and no file is replaced; state that is read is the fold of exactly what is
//! committed below the claimed offset, or, to write a lost file again, below its commit; only who was fenced off may find it gone.
//! After a last recovery: every record is in exactly one file, and the state of each partition is the fold of all its
//! records. `FS_DATA_SINK_LEDGER_SCHEDULES` sets how many schedules, `FS_DATA_SINK_LEDGER_SEED` replays one.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test: a panic is its way to fail")]
#![expect(clippy::print_stdout, reason = "says how many schedules it tried")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fs_data_sink::{
    commit::ledger::{
        append::{Answer, Append, Step},
        load::{Load, LoadStep, Loaded},
        record::{Action, Partition, Range, Record, RecordedFile, VERSION},
        state::{Pending, State},
        states::{PartitionState, StateRef, needed, no_longer_needed},
    },
    store::StagedAt,
};

/// Schedules of one run of the test suite.
const SCHEDULES: u64 = 1_000_000;

/// Writers at a time.
const SLOTS: usize = 3;

/// Source partitions.
const PARTITIONS: i32 = 3;

/// Records in each.
const RECORDS: i64 = 5;

/// Steps before the last recovery.
const STEPS: usize = 90;

/// Records from snapshot to snapshot.
const SNAPSHOT_EVERY: u64 = 4;

/// Nonces that a snapshot remembers: few, so that writers sleep longer than that.
const NONCES: u64 = 5;

/// A generator of numbers that is cheap and the same everywhere (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self((seed ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}

/// A row of the input.
type Row = (i32, i64);

/// An upload of the store.
struct Upload {
    path: String,
    rows: Vec<Row>,
    is_open: bool,
}

/// A request that is carried out later, or never.
enum Delayed {
    Create(u64, Record),
    Complete(usize),
}

/// The store, and what must hold of it.
#[derive(Default)]
struct World {
    records: BTreeMap<u64, Record>,
    snapshots: Vec<State>,
    uploads: Vec<Upload>,
    visible: HashMap<String, usize>,
    rows: HashMap<Row, usize>,
    delayed: Vec<Delayed>,
    names: u64,
    /// State by its name: who wrote it, and what it is.
    objects: HashMap<String, (String, u64)>,
    /// Objects that were listed, until the ledger is loaded to see whose they are.
    listed: Vec<String>,
}

/// What a plugin makes of a record: depends on every record before it and on their order.
fn fold(state: u64, offset: i64) -> u64 {
    (state + 1).wrapping_mul(0x0100_0000_01B3) ^ u64::try_from(offset).unwrap()
}

/// The fold of all records below an offset.
fn folded(next: i64) -> u64 {
    (0..next).fold(0, fold)
}

impl World {
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn is_beyond(&self, sequence: u64) -> bool {
        self.snapshots.last().is_some_and(|snapshot| snapshot.next > sequence)
    }

    fn create(&mut self, sequence: u64, record: &Record) -> Answer {
        if self.records.contains_key(&sequence) {
            return Answer::Exists;
        }
        self.records.insert(sequence, record.clone());
        Answer::New
    }

    fn stage(&mut self, path: String, rows: Vec<Row>) -> RecordedFile {
        let id = self.uploads.len();
        let sources = ranges_of(&rows);
        let (bytes, count) = (id as u64, rows.len() as u64);
        self.uploads.push(Upload { path: path.clone(), rows, is_open: true });
        let staged = StagedAt::Upload { id: id.to_string(), parts: Vec::new() };
        RecordedFile { path, bytes, rows: count, staged, sources }
    }

    /// Completes an upload; whether its file is visible then.
    fn complete(&mut self, id: usize) -> bool {
        let upload = &mut self.uploads[id];
        if !upload.is_open {
            return self.visible.contains_key(&upload.path);
        }
        upload.is_open = false;
        let before = self.visible.insert(upload.path.clone(), id);
        assert!(before.is_none(), "{} was replaced", upload.path);
        for row in &upload.rows {
            let before = self.rows.insert(*row, id);
            assert!(before.is_none(), "the record {row:?} is visible twice");
        }
        true
    }

    /// Takes a snapshot and deletes the records before it, or some of them: all that the protocol stands on is that a record
    /// is deleted only when there is a snapshot beyond it, though the program keeps one more stretch.
    fn snapshot(&mut self, state: &State, dice: &mut Dice) {
        let known = self.snapshots.last().map_or(0, |snapshot| snapshot.next);
        if known >= state.next {
            return;
        }
        let mut old: BTreeSet<String> =
            self.snapshots.iter().flat_map(|older| needed(older).into_iter().map(str::to_owned)).collect();
        self.snapshots.push(state.clone());
        for sequence in 0..state.next {
            if dice.one_in(8) {
                continue;
            }
            if let Some(Record { action: Action::Commit { states, .. }, .. }) = self.records.remove(&sequence) {
                old.extend(states.into_iter().flat_map(|state| state.plugins).map(|state| state.object));
            }
        }
        for object in no_longer_needed(state, old, &BTreeSet::new()) {
            self.objects.remove(&object);
        }
    }

    /// The ledger as it is, which no writer sees at once.
    fn truth(&self) -> State {
        let mut loading = Loading::begin(self);
        loop {
            if let Some(state) = loading.step(self) {
                return state;
            }
        }
    }

    /// Writes state.
    fn keep(&mut self, writer: &str, partition: i32, fold: u64) -> PartitionState {
        let object = self.name("s");
        self.objects.insert(object.clone(), (writer.to_owned(), fold));
        let (dataset, plugin, component, sha256) = (String::new(), String::new(), String::new(), String::new());
        let state = StateRef { dataset, plugin, component, object, object_bytes: 1, from: 0, bytes: 1, sha256 };
        PartitionState { topic: "t".to_owned(), partition, plugins: vec![state] }
    }

    /// Reads state; `None` when it is gone, which only one may find who is not `rightful` any more.
    fn read(&self, states: &[StateRef], is_rightful: impl Fn(&State) -> bool) -> Option<u64> {
        let [state] = states else {
            assert!(states.is_empty(), "a partition has two states of one plugin");
            return Some(0);
        };
        let found = self.objects.get(&state.object).map(|(_, fold)| *fold);
        assert!(found.is_some() || !is_rightful(&self.truth()), "state that is needed is gone");
        found
    }

    /// Lists the objects; at another time, removes those of writers that own nothing, unless the ledger needs them.
    fn sweep(&mut self) {
        if self.listed.is_empty() {
            self.listed = self.objects.keys().cloned().collect();
            self.listed.sort_unstable();
            return;
        }
        let truth = self.truth();
        let (needed, owns) = (needed(&truth), |writer: &str| {
            truth.partitions.values().any(|position| position.owner.as_deref() == Some(writer))
        });
        let listed = std::mem::take(&mut self.listed);
        for object in listed.iter().filter(|object| !needed.contains(object.as_str())) {
            if self.objects.get(object).is_some_and(|(writer, _)| !owns(writer)) {
                self.objects.remove(object);
            }
        }
    }
}

/// Rows as ranges; the rows of a partition follow each other.
fn ranges_of(rows: &[Row]) -> Vec<Range> {
    let mut ranges: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
    for (partition, offset) in rows {
        let range = ranges.entry(*partition).or_insert((*offset, *offset + 1));
        range.1 = range.1.max(offset + 1);
    }
    ranges.into_iter().map(|(partition, (from, to))| Range { topic: "t".to_owned(), partition, from, to }).collect()
}

/// The rows of ranges: what reading the source again gives.
fn rows_of(ranges: &[Range]) -> Vec<Row> {
    ranges.iter().flat_map(|range| (range.from..range.to).map(|offset| (range.partition, offset))).collect()
}

fn partition(number: i32) -> Partition {
    Partition { topic: "t".to_owned(), partition: number }
}

/// The ledger on its way into memory, a request at a time.
struct Loading(Load, LoadStep);

impl Loading {
    fn begin(world: &World) -> Self {
        let (load, step) = Load::start(world.snapshots.last().cloned());
        Self(load, step)
    }

    /// One request; the state once it is loaded.
    fn step(&mut self, world: &World) -> Option<State> {
        let base = match self.1 {
            LoadStep::Read(sequence) => {
                self.1 = self.0.was_read(world.records.get(&sequence));
                return None;
            }
            LoadStep::Look(base) => base,
        };
        match self.0.clone().looked(world.is_beyond(base)) {
            Loaded::State(state) => return Some(state),
            Loaded::Again => *self = Self::begin(world),
            Loaded::Damaged(sequence, misfit) => panic!("record {sequence} does not fit: {misfit}"),
        }
        None
    }
}

/// What a writer does once its record is in the ledger.
enum Then {
    Claimed(Vec<Partition>),
    Committed,
    Repaired(RecordedFile),
    Released,
}

/// What a writer is at.
enum Phase {
    Load,
    Ready,
    Append(Box<(Append, Step)>, Then, Vec<usize>),
    /// Commits to publish: sequence and files; those that are left.
    Publish(Vec<(u64, Pending)>),
}

/// A lane of a process.
struct Writer {
    id: String,
    /// What its process knows of the ledger.
    known: State,
    /// The append's own copy.
    state: State,
    loading: Option<Loading>,
    phase: Phase,
    /// Commits that wait while a lost file is restored.
    waiting: Vec<(u64, Pending)>,
    owned: BTreeMap<i32, i64>,
    /// What was claimed and not read yet.
    unread: BTreeMap<i32, Vec<StateRef>>,
    /// The state of plugins.
    folds: BTreeMap<i32, u64>,
    published: Vec<u64>,
    /// The last recovery: nothing fails any more.
    is_last: bool,
}

impl Writer {
    fn new(world: &mut World) -> Self {
        Self {
            id: world.name("w"),
            known: State::default(),
            state: State::default(),
            loading: None,
            phase: Phase::Load,
            waiting: Vec::new(),
            owned: BTreeMap::new(),
            unread: BTreeMap::new(),
            folds: BTreeMap::new(),
            published: Vec::new(),
            is_last: false,
        }
    }

    /// The lane begins anew: a new process, or the same one with what it knows.
    fn again(&mut self, world: &mut World, dice: &mut Dice) {
        let known = std::mem::take(&mut self.known);
        *self = Self::new(world);
        if dice.one_in(2) {
            self.known = known;
            self.phase = Phase::Ready;
        }
    }

    /// One request of a load; the state once it is there.
    fn load(&mut self, world: &World) -> Option<State> {
        let state = self.loading.get_or_insert_with(|| Loading::begin(world)).step(world)?;
        self.loading = None;
        self.known.clone_from(&state);
        Some(state)
    }

    fn append(&mut self, world: &mut World, action: Action, then: Then, uploads: Vec<usize>) {
        let record =
            Record { version: VERSION, writer: self.id.clone(), nonce: world.name("n"), time: String::new(), action };
        self.state.clone_from(&self.known);
        let started = Append::start(record, &self.state);
        self.phase = Phase::Append(Box::new(started), then, uploads);
    }

    /// Does one thing; `false` when the writer has to begin anew.
    fn step(&mut self, world: &mut World, dice: &mut Dice) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Load => {
                if self.load(world).is_none() {
                    self.phase = Phase::Load;
                }
                true
            }
            Phase::Ready => self.choose(world, dice),
            Phase::Append(append, then, uploads) => self.go_on(world, dice, *append, then, uploads),
            Phase::Publish(commits) => self.publish(world, dice, commits),
        }
    }

    /// Claims, commits or releases; `false` when it cannot go on.
    fn choose(&mut self, world: &mut World, dice: &mut Dice) -> bool {
        let todo: Vec<(i32, i64)> =
            self.owned.iter().map(|(number, next)| (*number, *next)).filter(|(_, next)| *next < RECORDS).collect();
        if self.owned.is_empty() || dice.one_in(6) {
            let all = self.is_last || dice.one_in(3);
            let numbers: Vec<_> = (0..PARTITIONS).filter(|_| all || dice.one_in(2)).collect();
            let partitions: Vec<_> = numbers.into_iter().map(partition).collect();
            self.append(
                world,
                Action::Claim { partitions: partitions.clone(), topic_ids: BTreeMap::new() },
                Then::Claimed(partitions),
                Vec::new(),
            );
        } else if todo.is_empty() || (!self.is_last && dice.one_in(12)) {
            let partitions = self.owned.keys().map(|number| partition(*number)).collect();
            let published = std::mem::take(&mut self.published);
            self.append(world, Action::Release { partitions, published }, Then::Released, Vec::new());
        } else if !self.is_last && dice.one_in(10) {
            let one = self.owned.first_key_value().map(|(number, next)| (*number, *next));
            return self.restore(world, one.as_slice()) && self.say_again(world);
        } else {
            return self.restore(world, &todo) && self.commit(world, dice, &todo);
        }
        true
    }

    /// Commits state alone, as when a plugin gives something out without a new record.
    fn say_again(&mut self, world: &mut World) -> bool {
        let number = *self.owned.first_key_value().unwrap().0;
        let states = vec![world.keep(&self.id, number, self.folds.get(&number).copied().unwrap_or_default())];
        let published = std::mem::take(&mut self.published);
        let action = Action::Commit { ranges: Vec::new(), files: Vec::new(), published, states };
        self.append(world, action, Then::Committed, Vec::new());
        true
    }

    /// Reads the state of the partitions that go on, where that was not done; `false` when it is gone.
    fn restore(&mut self, world: &World, todo: &[(i32, i64)]) -> bool {
        for (number, next) in todo {
            let Some(states) = self.unread.get(number) else { continue };
            let key = partition(*number);
            let is_rightful = |truth: &State| truth.partitions[&key].owner.as_ref() == Some(&self.id);
            let Some(fold) = world.read(states, is_rightful) else { return false };
            assert_eq!(fold, folded(*next), "the state of partition {number} is not that of its offset");
            self.unread.remove(number);
            self.folds.insert(*number, fold);
        }
        true
    }

    /// Stages some records and commits them; one file a partition, or one for all.
    fn commit(&mut self, world: &mut World, dice: &mut Dice, todo: &[(i32, i64)]) -> bool {
        let mut groups: Vec<Vec<Row>> = Vec::new();
        let together = dice.one_in(2);
        for (number, next) in todo {
            let to = (next + 1 + i64::try_from(dice.below(2)).unwrap()).min(RECORDS);
            let rows = (*next..to).map(|offset| (*number, offset));
            match groups.first_mut() {
                Some(first) if together => first.extend(rows),
                _ => groups.push(rows.collect()),
            }
        }
        let ranges: Vec<Range> = groups.iter().flat_map(|rows| ranges_of(rows)).collect();
        let states = ranges.iter().map(|range| {
            let state = self.folds.entry(range.partition).or_default();
            *state = (range.from..range.to).fold(*state, fold);
            world.keep(&self.id, range.partition, *state)
        });
        let states = states.collect();
        let files: Vec<_> = groups
            .into_iter()
            .map(|rows| {
                let path = world.name("f");
                world.stage(path, rows)
            })
            .collect();
        let uploads = files.iter().map(upload_of).collect();
        let published = std::mem::take(&mut self.published);
        self.append(world, Action::Commit { ranges, files, published, states }, Then::Committed, uploads);
        true
    }

    /// One request of an append.
    fn go_on(
        &mut self,
        world: &mut World,
        dice: &mut Dice,
        (mut append, step): (Append, Step),
        then: Then,
        uploads: Vec<usize>,
    ) -> bool {
        if !self.is_last && dice.one_in(30) {
            // The store does not answer for so long that the append is broken off.
            return false;
        }
        let state = &mut self.state;
        let next = match step {
            Step::Create(sequence) => {
                let answer = match dice.below(if self.is_last { 1 } else { 10 }) {
                    0..6 => world.create(sequence, append.record()),
                    6 => {
                        world.create(sequence, append.record());
                        Answer::Unknown
                    }
                    7 => {
                        world.delayed.push(Delayed::Create(sequence, append.record().clone()));
                        Answer::Unknown
                    }
                    _ => Answer::Unknown,
                };
                append.created(state, answer)
            }
            Step::Read(sequence) => append.was_read(state, world.records.get(&sequence)),
            Step::Look(base) => append.looked(state, world.is_beyond(base)),
            Step::Load => match self.load(world) {
                Some(loaded) => {
                    self.state = loaded;
                    append.loaded(&self.state)
                }
                None => Step::Load,
            },
            Step::Lost => return false,
            Step::Refused(_) => {
                for id in uploads {
                    world.uploads[id].is_open = false;
                }
                if let Action::Commit { states, .. } = &append.record().action {
                    for state in states.iter().flat_map(|state| &state.plugins) {
                        world.objects.remove(&state.object);
                    }
                }
                return false;
            }
            Step::Appended(sequence) => {
                if state.next.is_multiple_of(SNAPSHOT_EVERY) {
                    state.forget_nonces(NONCES);
                    let state = state.clone();
                    world.snapshot(&state, dice);
                }
                self.known.clone_from(&self.state);
                self.appended(sequence, then, &append.record().action);
                return true;
            }
        };
        self.phase = Phase::Append(Box::new((append, next)), then, uploads);
        true
    }

    /// The record is in the ledger.
    fn appended(&mut self, sequence: u64, then: Then, action: &Action) {
        match then {
            Then::Claimed(partitions) => {
                for claimed in &partitions {
                    let next = self.state.partitions.get(claimed).and_then(|position| position.next_offset);
                    self.owned.insert(claimed.partition, next.unwrap_or(0));
                    self.folds.remove(&claimed.partition);
                    self.unread.insert(claimed.partition, self.state.state_of(claimed).to_vec());
                }
                self.phase = Phase::Publish(self.state.pending_of(&partitions));
            }
            Then::Committed => {
                let Action::Commit { ranges, files, .. } = action else { panic!("not a commit") };
                for range in ranges {
                    self.owned.insert(range.partition, range.to);
                }
                // Its own files that are lost are left to the next claim, which knows the state before.
                let pending = Pending { ranges: ranges.clone(), files: files.clone(), before: Vec::new() };
                self.phase = Phase::Publish(vec![(sequence, pending)]);
            }
            Then::Repaired(file) => {
                let mut commits = std::mem::take(&mut self.waiting);
                commits[0].1.files.insert(0, file);
                self.phase = Phase::Publish(commits);
            }
            Then::Released => {
                self.owned.clear();
                self.unread.clear();
                self.folds.clear();
            }
        }
    }

    /// Publishes one file.
    fn publish(&mut self, world: &mut World, dice: &mut Dice, mut commits: Vec<(u64, Pending)>) -> bool {
        let Some((sequence, pending)) = commits.first_mut() else { return true };
        let Some(file) = pending.files.first().cloned() else {
            self.published.push(*sequence);
            commits.remove(0);
            self.phase = Phase::Publish(commits);
            return true;
        };
        let upload = upload_of(&file);
        match dice.below(if self.is_last { 1 } else { 8 }) {
            0..5 => {
                pending.files.remove(0);
                if !world.complete(upload) {
                    return self.repair(world, commits, &file);
                }
            }
            // Carried out, and no answer.
            5 => _ = world.complete(upload),
            6 => world.delayed.push(Delayed::Complete(upload)),
            _ => {}
        }
        self.phase = Phase::Publish(commits);
        true
    }

    /// Writes a lost file once more.
    fn repair(&mut self, world: &mut World, commits: Vec<(u64, Pending)>, lost: &RecordedFile) -> bool {
        let (sequence, pending) = &commits[0];
        let sequence = *sequence;
        for before in &pending.before {
            let is_rightful = |truth: &State| {
                let first = truth.pending.get(&sequence).map(|pending| pending.partitions()[0].clone());
                first.is_some_and(|first| truth.partitions[&first].owner.as_ref() == Some(&self.id))
            };
            let from = pending.ranges.iter().find(|range| range.partition == before.partition).unwrap().from;
            let Some(fold) = world.read(&before.plugins, is_rightful) else { return false };
            assert_eq!(fold, folded(from), "the state before commit {sequence} is not that of its offsets");
        }
        let file = world.stage(lost.path.clone(), rows_of(&lost.sources));
        let upload = upload_of(&file);
        self.waiting = commits;
        self.append(world, Action::Repair { sequence, file: file.clone() }, Then::Repaired(file), vec![upload]);
        true
    }
}

fn upload_of(file: &RecordedFile) -> usize {
    match &file.staged {
        StagedAt::Upload { id, .. } => id.parse().unwrap(),
        StagedAt::File(path) => panic!("{path} is no upload"),
    }
}

/// Carries out a delayed request, if there is one.
fn carry_out(world: &mut World, dice: &mut Dice) {
    if world.delayed.is_empty() {
        return;
    }
    let at = usize::try_from(dice.below(world.delayed.len() as u64)).unwrap();
    match world.delayed.swap_remove(at) {
        Delayed::Create(sequence, record) => _ = world.create(sequence, &record),
        Delayed::Complete(id) => _ = world.complete(id),
    }
}

/// An upload that was never completed expires.
fn expire(world: &mut World, dice: &mut Dice) {
    let open: Vec<usize> = (0..world.uploads.len()).filter(|id| world.uploads[*id].is_open).collect();
    if !open.is_empty() {
        let id = open[usize::try_from(dice.below(open.len() as u64)).unwrap()];
        world.uploads[id].is_open = false;
    }
}

/// One schedule.
fn run(seed: u64) {
    let (mut dice, mut world) = (Dice::new(seed), World::default());
    let mut writers: Vec<Writer> = (0..SLOTS).map(|_| Writer::new(&mut world)).collect();
    let mut awake = 0;
    for _ in 0..STEPS {
        // Mostly the same one for a while, so that the others sleep long.
        if dice.one_in(4) {
            awake = usize::try_from(dice.below(SLOTS as u64)).unwrap();
        }
        let slot = awake;
        match dice.below(40) {
            0 => writers[slot] = Writer::new(&mut world),
            1 => expire(&mut world, &mut dice),
            2 | 3 => carry_out(&mut world, &mut dice),
            4 => world.sweep(),
            _ => {
                if !writers[slot].step(&mut world, &mut dice) {
                    writers[slot].again(&mut world, &mut dice);
                }
            }
        }
    }
    let mut last = Writer::new(&mut world);
    last.is_last = true;
    for _ in 0..600 {
        assert!(last.step(&mut world, &mut dice), "the last writer was refused");
        if matches!(last.phase, Phase::Ready)
            && last.owned.len() == 3
            && last.owned.values().all(|next| *next == RECORDS)
        {
            break;
        }
    }
    // What wakes up afterwards changes nothing any more.
    for writer in &mut writers {
        for _ in 0..10 {
            if !writer.is_asleep() && !writer.step(&mut world, &mut dice) {
                break;
            }
        }
    }
    while !world.delayed.is_empty() {
        carry_out(&mut world, &mut dice);
    }
    check(&world, &last);
}

impl Writer {
    /// Whether it would begin something new, which is not what the end of a schedule is about.
    fn is_asleep(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Load) || matches!(&self.phase, Phase::Append(_, Then::Claimed(_), _))
    }
}

/// Every record is in exactly one visible file, and the ledger knows each of those files.
fn check(world: &World, last: &Writer) {
    let all: BTreeSet<Row> =
        (0..PARTITIONS).flat_map(|number| (0..RECORDS).map(move |offset| (number, offset))).collect();
    let visible: BTreeSet<Row> = world.rows.keys().copied().collect();
    assert_eq!(visible, all, "records are missing");
    let positions = last.state.partitions.values().map(|position| position.next_offset);
    assert!(positions.into_iter().all(|next| next == Some(RECORDS)), "a position is behind");
    let truth = world.truth();
    for number in 0..PARTITIONS {
        let state = world.read(truth.state_of(&partition(number)), |_| true);
        assert_eq!(state, Some(folded(RECORDS)), "the state of partition {number} is not that of all its records");
    }
}

/// Runs schedules on all cores; the seed of the first that fails.
fn find_failure(first: u64, count: u64) -> Option<u64> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let workers: Vec<_> = (0..cores)
        .map(|core| {
            std::thread::spawn(move || {
                (first + core..first + count)
                    .step_by(usize::try_from(cores).unwrap())
                    .find(|seed| std::panic::catch_unwind(|| run(*seed)).is_err())
            })
        })
        .collect();
    workers.into_iter().filter_map(|worker| worker.join().unwrap()).min()
}

#[test]
fn no_schedule_doubles_or_loses_a_record() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("FS_DATA_SINK_LEDGER_SEED") {
        return run(seed);
    }
    let schedules = number("FS_DATA_SINK_LEDGER_SCHEDULES").unwrap_or(SCHEDULES);
    let began = std::time::Instant::now();
    let failure = find_failure(1, schedules);
    println!("{schedules} schedules in {:.1} s", began.elapsed().as_secs_f64());
    if let Some(seed) = failure {
        panic!("schedule {seed} fails; FS_DATA_SINK_LEDGER_SEED={seed} replays it");
    }
}
