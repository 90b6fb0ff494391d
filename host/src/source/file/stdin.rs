//! Standard input, read on a thread of its own: it may pause for ever, and whoever waits for it has other things to do.

use std::{
    io::{self, BufReader},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
};

use super::{
    Reader,
    kind::{Content, Input, look},
    lines::{Line, next_line},
    rows::{Rows, next_of_arrow, open_arrow},
};
use crate::error::PipelineError;

/// Lines that may wait: a batch's worth, so that reading goes on while one is built.
const LINES_WAITING_MAX: usize = 8_192;

/// Record batches that may wait: one, while the next is read.
const BATCHES_WAITING_MAX: usize = 1;

/// What standard input turned out to hold.
enum Found {
    /// Lines.
    Lines(Receiver<io::Result<Vec<u8>>>),
    /// Rows.
    Rows(Receiver<Result<Rows, PipelineError>>),
}

impl Reader {
    /// Reads standard input to its end; `false` when the lane wants no more.
    pub(super) fn read_standard_input(&mut self, name: &str) -> Result<bool, PipelineError> {
        let failed = |error| PipelineError::stop("standard input cannot be read").because(error);
        let found = start().map_err(failed)?;
        let found = loop {
            match found.recv_timeout(self.batch_timeout) {
                Ok(found) => break found.map_err(failed)?,
                Err(RecvTimeoutError::Timeout) if !self.control.is_stopped() => {}
                Err(_) => return Ok(false),
            }
        };
        match found {
            Found::Lines(lines) => self.read_waiting_lines(name, &lines),
            Found::Rows(batches) => {
                let wait = self.batch_timeout;
                self.read_rows(name, 0, || match batches.recv_timeout(wait) {
                    Ok(rows) => rows,
                    Err(RecvTimeoutError::Timeout) => Ok(Rows::NoneYet),
                    Err(RecvTimeoutError::Disconnected) => Ok(Rows::End),
                })
            }
        }
    }
}

/// Starts the thread.
fn start() -> io::Result<Receiver<io::Result<Found>>> {
    let (sender, found) = sync_channel(1);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        // Whoever asked may be gone; then nobody wants what comes.
        match look(BufReader::new(io::stdin())) {
            Ok(Content::Lines(input)) => {
                let (lines, receiver) = sync_channel(LINES_WAITING_MAX);
                if sender.send(Ok(Found::Lines(receiver))).is_ok() {
                    send_lines(input, &lines);
                }
            }
            Ok(Content::Arrow(input)) => {
                let (batches, receiver) = sync_channel(BATCHES_WAITING_MAX);
                if sender.send(Ok(Found::Rows(receiver))).is_ok() {
                    send_batches(input, &batches);
                }
            }
            // It needs a file to jump about in, so it is never found here.
            Ok(Content::Parquet(_)) => {}
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        }
    })?;
    Ok(found)
}

/// Sends every line until the end, the first error, or until nobody listens.
fn send_lines(mut input: Input, lines: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut line = Vec::new();
        let next = match next_line(&mut input, &mut line) {
            Ok(Line::Read) => Ok(line),
            Ok(_) => break,
            Err(error) => Err(error),
        };
        let failed = next.is_err();
        if lines.send(next).is_err() || failed {
            break;
        }
    }
}

/// The same for record batches.
fn send_batches(input: Input, batches: &SyncSender<Result<Rows, PipelineError>>) {
    let mut number = 0;
    let mut reader = match open_arrow("-", input) {
        Ok(reader) => reader,
        Err(error) => {
            let _ = batches.send(Err(error));
            return;
        }
    };
    loop {
        let next = next_of_arrow("-", &mut reader, &mut number);
        let is_last = !matches!(next, Ok(Rows::Read(_)));
        if batches.send(next).is_err() || is_last {
            break;
        }
    }
}
