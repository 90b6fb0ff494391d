//! Lines of records: each is one, with the number of the line, from 0, as offset. Lines end with `\n` or `\r\n`; empty ones
//! are passed over and counted. A byte order mark before the first one belongs to none.

use std::{
    io::{self, BufRead, Read as _},
    sync::{Arc, mpsc::RecvTimeoutError},
    time::Instant,
};

use super::{Reader, kind::BYTE_ORDER_MARK, wrong_end};
use crate::{
    error::PipelineError,
    source::envelope::{EnvelopeBuilder, Record},
};

/// Longest line: what is longer is hardly a record, and would fill the memory.
const LINE_BYTES_MAX: u64 = 128 << 20;

/// What a look for the next line gave.
pub(super) enum Line {
    /// One.
    Read,
    /// None so far; more may come.
    NoneYet,
    /// No more.
    End,
}

impl Reader {
    /// Reads the lines of a file; `false` when the lane wants no more.
    pub(super) fn read_lines(
        &mut self,
        file: &str,
        mut next: impl FnMut(&mut Vec<u8>) -> io::Result<Line>,
    ) -> Result<bool, PipelineError> {
        let mut builder = EnvelopeBuilder::new(file.into(), Arc::clone(&self.context.pipeline));
        let (mut line, mut number, mut began) = (Vec::new(), 0i64, Instant::now());
        let wanted = self.wanted(file);
        while number < wanted.to {
            let answer = match next(&mut line) {
                Ok(answer) => answer,
                Err(error) => {
                    // What came before is sound.
                    if !builder.is_empty() {
                        self.send(&mut builder)?;
                    }
                    let words = format!("{file}: line {}: the file cannot be read; the lines before were", number + 1);
                    return Err(PipelineError::stop(words).because(error));
                }
            };
            match answer {
                Line::End => break,
                Line::NoneYet => {}
                Line::Read if number < wanted.from => number += 1,
                Line::Read if line.len() as u64 > LINE_BYTES_MAX => {
                    return Err(PipelineError::stop(format!(
                        "{file}: line {} is longer than {} MiB: is this newline-delimited JSON?",
                        number + 1,
                        LINE_BYTES_MAX >> 20
                    )));
                }
                Line::Read => {
                    add(&mut builder, number, &line);
                    number += 1;
                }
            }
            let is_due = builder.is_full(self.rows_max) || began.elapsed() >= self.batch_timeout;
            if is_due && !builder.is_empty() {
                if !self.send(&mut builder)? {
                    return Ok(false);
                }
                began = Instant::now();
            }
            if self.control.is_stopped() {
                return Ok(false);
            }
        }
        if number < wanted.from {
            return Err(wrong_end(file, "line", wanted.from, number));
        }
        if builder.is_empty() { Ok(true) } else { self.send(&mut builder) }
    }

    /// Reads the lines of standard input, which may pause for ever: a batch that is not full goes on all the same.
    pub(super) fn read_waiting_lines(
        &mut self,
        file: &str,
        lines: &std::sync::mpsc::Receiver<io::Result<Vec<u8>>>,
    ) -> Result<bool, PipelineError> {
        let wait = self.batch_timeout;
        self.read_lines(file, |line| match lines.recv_timeout(wait) {
            Ok(next) => {
                *line = next?;
                Ok(Line::Read)
            }
            Err(RecvTimeoutError::Timeout) => Ok(Line::NoneYet),
            Err(RecvTimeoutError::Disconnected) => Ok(Line::End),
        })
    }
}

/// Adds a line to a batch; an empty one is covered only.
fn add(builder: &mut EnvelopeBuilder, number: i64, line: &[u8]) {
    let value = trimmed(line);
    let value = if number == 0 { value.strip_prefix(BYTE_ORDER_MARK).unwrap_or(value) } else { value };
    if value.is_empty() {
        builder.cover(0, number, number + 1);
    } else {
        builder.push(Record { partition: 0, offset: number, timestamp_ms: None, key: None, value: Some(value) });
    }
}

/// The next line of a file, at most one byte longer than is allowed.
pub(super) fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let length = input.take(LINE_BYTES_MAX + 1).read_until(b'\n', line)?;
    Ok(if length == 0 { Line::End } else { Line::Read })
}

/// A line without its end.
fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
