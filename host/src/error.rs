//! The one question that is answered centrally about every failure: go on trying, or stop the pipeline.
//!
//! A record that cannot be used is not a failure; it is a [`crate::batch::Rejection`] and becomes a dead letter.

use std::error::Error as StdError;

/// A failure that ends a pipeline: what failed, in words a person can act on, and why.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PipelineError {
    /// What failed, where, and what to do.
    message: String,
    /// Whether starting again with the same configuration can help.
    verdict: Verdict,
    /// What lies beneath.
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same step may succeed later: a server is away, slow or busy.
    Retry,
    /// The configuration or an answer of a server rules it out: a person has to act.
    Stop,
    /// What the lane holds is not its own any more (another process took over), or cannot be known to be: everything
    /// uncommitted is dropped, and the lane begins anew from what is committed.
    Restart,
}

impl PipelineError {
    /// A failure that only a person can end.
    pub fn stop(message: impl Into<String>) -> Self {
        Self { message: message.into(), verdict: Verdict::Stop, source: None }
    }

    /// A failure that may pass by itself.
    pub fn retry(message: impl Into<String>) -> Self {
        Self { message: message.into(), verdict: Verdict::Retry, source: None }
    }

    /// A failure after which the lane begins anew from what is committed.
    pub fn restart(message: impl Into<String>) -> Self {
        Self { message: message.into(), verdict: Verdict::Restart, source: None }
    }

    /// Keeps what lies beneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The message with every cause behind it, on one line.
    #[must_use]
    pub fn full_message(&self) -> String {
        full_message(self)
    }
}

/// An error with every cause behind it, on one line; a cause that repeats its parent's words is left out.
#[must_use]
pub fn full_message(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_message_names_each_cause_once() {
        let inner = std::io::Error::other("disk full");
        let error = PipelineError::stop("cannot write a file").because(inner);
        assert_eq!(error.full_message(), "cannot write a file: disk full");
    }
}
