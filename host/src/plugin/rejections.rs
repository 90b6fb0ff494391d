//! The rows that a plugin refuses, from its answer to what dead letters are made of.

use std::sync::Arc;

use super::{
    apply::Shape,
    bindings::types::Rejection as GuestRejection,
    failure::{BadOutput, Limit, clean},
};
use crate::batch::{Rejection, Stage};

/// Bytes of a rejection's code; it becomes a metric label.
const CODE_BYTES_MAX: usize = 64;

/// Refused rows: in range, each once, with a code that can be a metric label.
pub(super) fn read_rejections(
    answered: Vec<GuestRejection>,
    rows: usize,
    shape: &Shape,
) -> Result<Vec<Rejection>, BadOutput> {
    if answered.len() > shape.rejections_max {
        let words = format!("answered {} rejections; it may answer {}", answered.len(), shape.rejections_max);
        return Err(BadOutput::above(Limit::Rejections, words));
    }
    if answered.len() > rows {
        return Err(BadOutput::new(format!("answered {} rejections for {rows} rows", answered.len())));
    }
    let refused_rows = answered.iter().map(|rejection| rejection.rows.len()).fold(0, usize::saturating_add);
    if refused_rows > shape.rejected_rows_max {
        let words = format!("refused {refused_rows} of {rows} rows; it may refuse {}", shape.rejected_rows_max);
        return Err(BadOutput::above(Limit::RejectedRows, words));
    }
    let mut seen = if answered.is_empty() { Vec::new() } else { vec![false; rows] };
    let mut rejected = Vec::with_capacity(answered.len());
    for GuestRejection { code, message, rows: mut refused } in answered {
        if !is_code(&code) {
            let code = clean(code.get(..CODE_BYTES_MAX).unwrap_or(&code));
            return Err(BadOutput::new(format!(
                "answered a rejection with code `{code}`; a code has 1 to {CODE_BYTES_MAX} lower-case letters, digits, \
                 `-`, `_` and `.`"
            )));
        }
        for row in &refused {
            match seen.get_mut(*row as usize) {
                None => return Err(BadOutput::new(format!("rejected row {row} of a batch of {rows} rows"))),
                Some(true) => return Err(BadOutput::new(format!("rejected row {row} twice"))),
                Some(seen) => *seen = true,
            }
        }
        if refused.is_empty() {
            continue;
        }
        refused.sort_unstable();
        rejected.push(Rejection {
            rows: refused,
            stage: Stage::Plugin,
            plugin: Some(Arc::clone(&shape.plugin)),
            code,
            message: clean(&message),
        });
    }
    Ok(rejected)
}

/// Whether a code is short and of a small alphabet.
fn is_code(code: &str) -> bool {
    (1..=CODE_BYTES_MAX).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}
