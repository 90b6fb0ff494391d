//! Appending one record, as a machine that asks for requests and takes their answers. Pure, so that the model test
//! (`tests/ledger_model.rs`) drives the very code that runs.
//!
//! ```text
//! Create N --new-------------> Look for a snapshot beyond N --none--> appended at N
//!    |                                      `---------------there-> Load the state anew
//!    |--exists, no answer--> Read N --mine--> Look, as above
//!    |                         |----foreign-> add it; Look for a snapshot beyond N --none--> Create N+1, or refused
//!    |                         |                              `---------------------there-> Load
//!    |                         `----nothing-> no answer before: Create N again; else Load
//! Load --the state has my record--> appended
//!    |---it surely has not--------> Create at its end, or refused; Lost where a create of a record with state may have succeeded
//!    `---nobody can tell----------> Lost: drop everything, claim anew
//! ```
//!
//! A number can be taken twice: a writer that slept while the others went far may create a record where one was deleted. A
//! record is deleted only when a snapshot beyond it is there, and the newest snapshot is never deleted; so while there is
//! no snapshot beyond N, the record at N is the only one that ever had its number. Hence the look after each record that
//! was created or read: what comes before it counts, what comes after it is built on nothing else, neither success nor
//! refusal follows from hearsay, and no record is created on top of it. Whoever finds a snapshot asks a loaded state,
//! which remembers the last nonces.

use super::{
    record::Record,
    state::{Refusal, State},
    states,
};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the record at this sequence, if there is none.
    Create(u64),
    /// Read the record at this sequence.
    Read(u64),
    /// See whether there is a snapshot of more than this sequence.
    Look(u64),
    /// Load the state anew: the others have gone far.
    Load,
    /// The record is the ledger's, at this sequence, and the state has it.
    Appended(u64),
    /// Nobody can tell any more whether the record counts. What it names must be left alone.
    Lost,
    /// The record may not be appended.
    Refused(Refusal),
}

/// How a request to create ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Created.
    New,
    /// There is one.
    Exists,
    /// No answer came.
    Unknown,
}

/// A record on its way into the ledger.
#[derive(Clone, Debug)]
pub struct Append {
    /// The record.
    record: Record,
    /// Whether an answer to a create was lost, so that the record may be there or may yet come.
    is_unknown: bool,
    /// The first sequence at which a create may have succeeded.
    tried_at: Option<u64>,
    /// Whether the record at the end of the state is ours, if it counts.
    is_there: bool,
}

impl Append {
    /// Begins, from a state that is known to be the ledger's: the first step.
    #[must_use]
    pub fn start(record: Record, state: &State) -> (Self, Step) {
        let step = create_or_refuse(&record, state);
        (Self { record, is_unknown: false, tried_at: None, is_there: false }, step)
    }

    /// The record to create.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// A create has ended.
    pub fn created(&mut self, state: &mut State, answer: Answer) -> Step {
        self.is_unknown |= answer == Answer::Unknown;
        if answer != Answer::Exists {
            self.tried_at.get_or_insert(state.next);
        }
        match answer {
            Answer::New => {
                self.is_there = true;
                Step::Look(state.next)
            }
            Answer::Exists | Answer::Unknown => Step::Read(state.next),
        }
    }

    /// The record at the next sequence was read; `None`: there is none.
    pub fn was_read(&mut self, state: &mut State, found: Option<&Record>) -> Step {
        let sequence = state.next;
        match found {
            Some(found) if found.nonce == self.record.nonce => {
                self.is_there = true;
                Step::Look(sequence)
            }
            Some(foreign) => match state.apply(foreign) {
                Ok(()) => Step::Look(sequence),
                Err(_) => Step::Load,
            },
            None if self.is_unknown => Step::Create(sequence),
            // It was there and is gone: deleted behind a snapshot.
            None => Step::Load,
        }
    }

    /// It is known whether there is a snapshot beyond the record that was created or read.
    pub fn looked(&mut self, state: &mut State, is_beyond: bool) -> Step {
        if is_beyond {
            return Step::Load;
        }
        if !self.is_there {
            return create_or_refuse(&self.record, state);
        }
        let sequence = state.next;
        match state.apply(&self.record) {
            Ok(()) => Step::Appended(sequence),
            Err(refusal) => Step::Refused(refusal),
        }
    }

    /// The state was loaded anew.
    pub fn loaded(&mut self, state: &State) -> Step {
        self.is_there = false;
        if let Some(sequence) = state.sequence_of(&self.record.nonce) {
            return Step::Appended(sequence);
        }
        match self.tried_at {
            Some(tried_at) if !state.remembers(tried_at) => Step::Lost,
            // A record of ours may stand where it does not count; whoever clears it away takes the state with it that it names.
            Some(_) if !states::named(&self.record.action).is_empty() => Step::Lost,
            _ => create_or_refuse(&self.record, state),
        }
    }
}

/// The next try, if the writer may still append.
fn create_or_refuse(record: &Record, state: &State) -> Step {
    match state.allows(&record.writer, &record.action) {
        Ok(()) => Step::Create(state.next),
        Err(refusal) => Step::Refused(refusal),
    }
}
