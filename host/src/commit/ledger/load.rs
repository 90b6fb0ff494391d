//! Reading the whole ledger while others write it and delete behind snapshots. Pure, like `append.rs`.
//!
//! ```text
//! the newest snapshot (its sequence is the base) --> Read N, N+1, ... --nothing there--> Look for a snapshot beyond the base
//!                                                                          none--> loaded;  there--> begin anew
//! ```
//!
//! A record is deleted only when a snapshot beyond it is there. While there is none beyond the base, no record from the
//! base on was deleted, so each that was read is the only one that ever had its number.

use super::{
    record::Record,
    state::{Refusal, State},
};

/// A ledger on its way into memory.
#[derive(Clone, Debug)]
pub struct Load {
    /// What was read so far.
    state: State,
    /// The snapshot's sequence.
    base: u64,
    /// Why the record at the end does not fit.
    misfit: Option<Refusal>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStep {
    /// Read the record at this sequence.
    Read(u64),
    /// See whether there is a snapshot of more than this sequence.
    Look(u64),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The ledger, up to a moment at or after the begin.
    State(State),
    /// A snapshot was made meanwhile: begin anew.
    Again,
    /// The record at this sequence does not follow from those before it.
    Damaged(u64, Refusal),
}

impl Load {
    /// Begins at the newest snapshot.
    #[must_use]
    pub fn start(snapshot: Option<State>) -> (Self, LoadStep) {
        let state = snapshot.unwrap_or_default();
        let base = state.next;
        (Self { state, base, misfit: None }, LoadStep::Read(base))
    }

    /// The record at the next sequence was read; `None`: there is none.
    pub fn was_read(&mut self, found: Option<&Record>) -> LoadStep {
        match found.map(|record| self.state.apply(record)) {
            Some(Ok(())) => LoadStep::Read(self.state.next),
            Some(Err(misfit)) => {
                self.misfit = Some(misfit);
                LoadStep::Look(self.base)
            }
            None => LoadStep::Look(self.base),
        }
    }

    /// It is known whether there is a snapshot beyond the base.
    #[must_use]
    pub fn looked(self, is_beyond: bool) -> Loaded {
        match self.misfit {
            _ if is_beyond => Loaded::Again,
            Some(misfit) => Loaded::Damaged(self.state.next, misfit),
            None => Loaded::State(self.state),
        }
    }
}
