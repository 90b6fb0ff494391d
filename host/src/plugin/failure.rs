//! The ways in which a call of a plugin can fail, told apart by what the host does next.

use super::bindings::types::Error as GuestError;

/// Longest message that goes into a log line or a dead letter.
const MESSAGE_BYTES_MAX: usize = 4096;

/// A limit of a plugin: a key of `limits`, or one that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Memories and tables.
    Memory,
    /// Wall clock.
    CallTimeout,
    /// Rows in an answer.
    OutputRows,
    /// Bytes in an answer.
    OutputBytes,
    /// The same unpacked.
    OutputLogicalBytes,
    /// Rejections in an answer.
    Rejections,
    /// Rows in them.
    RejectedRows,
    /// Log text.
    LogBytesPerSecond,
    /// Calls of the host.
    HostCalls,
    /// Bytes that the host copies.
    HostCallBytes,
    /// Instances at once.
    Instances,
    /// Handles of the host.
    Handles,
    /// Names of metrics.
    MetricNames,
    /// A snapshot of its state.
    StateBytes,
    /// Memories and tables of all plugins of its tenant.
    TenantMemory,
}

impl Limit {
    /// The label in `fs_data_sink.plugin_limit_hits`; the key in the configuration, where there is one.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::CallTimeout => "call_timeout",
            Self::OutputRows => "output_rows",
            Self::OutputBytes => "output_bytes",
            Self::OutputLogicalBytes => "output_logical_bytes",
            Self::Rejections => "rejections",
            Self::RejectedRows => "rejected_rows",
            Self::LogBytesPerSecond => "log_bytes_per_second",
            Self::HostCalls => "host_calls",
            Self::HostCallBytes => "host_call_bytes",
            Self::Instances => "instances",
            Self::Handles => "handles",
            Self::MetricNames => "metric_names",
            Self::StateBytes => "state_bytes",
            Self::TenantMemory => "tenant_memory",
        }
    }
}

/// An answer that breaks a rule of the plugin API, in words that begin after "the plugin ".
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct BadOutput {
    /// The words.
    message: String,
    /// The limit that it is above, if that is what is wrong.
    limit: Option<Limit>,
}

impl BadOutput {
    /// An answer that breaks a rule.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), limit: None }
    }

    /// An answer that is above a limit.
    pub(super) fn above(limit: Limit, message: impl Into<String>) -> Self {
        Self { message: format!("{} (limits.{})", message.into(), limit.as_str()), limit: Some(limit) }
    }
}

/// Why an instance cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// It ran past `limits.call_timeout`.
    Timeout,
    /// It asked for more than `limits.memory`, and then gave up.
    Memory,
    /// It trapped: `unreachable`, a division by zero, an access out of bounds, a full stack, `exit`.
    Trap,
    /// Its answer breaks a rule.
    BadOutput,
    /// It made the host work more than `limits.host_calls` or `limits.host_call_bytes` allow.
    HostCalls,
}

impl FailureKind {
    /// The code in dead letters and metric labels.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Timeout => "plugin-timeout",
            Self::Memory => "plugin-memory",
            Self::Trap => "plugin-trap",
            Self::BadOutput => "plugin-bad-output",
            Self::HostCalls => "plugin-host-calls",
        }
    }
}

/// What happened to an instance that has to be thrown away.
#[derive(Debug)]
pub(super) struct Failure {
    /// What kind of thing.
    pub(super) kind: FailureKind,
    /// In words that begin after "the plugin ".
    pub(super) message: String,
    /// The limit that was hit, if it was one.
    pub(super) limit: Option<Limit>,
}

impl From<BadOutput> for Failure {
    fn from(BadOutput { message, limit }: BadOutput) -> Self {
        Self { kind: FailureKind::BadOutput, message, limit }
    }
}

/// How a call ends when it does not end well.
#[derive(Debug)]
pub(super) enum CallError {
    /// The plugin answered with an error; the instance can still be used.
    Answered(GuestError),
    /// The instance must be thrown away.
    Broken(Failure),
    /// The pipeline was asked to stop before the call could begin; in words.
    Stopped(String),
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Broken(failure)
    }
}

impl From<BadOutput> for CallError {
    fn from(bad: BadOutput) -> Self {
        Self::Broken(bad.into())
    }
}

/// An error that a plugin answered, in words.
pub(super) fn guest_error_words(error: &GuestError) -> String {
    match error {
        GuestError::InvalidConfig(message) => clean(&format!("invalid config: {message}")),
        GuestError::UnsupportedSchema(message) => clean(&format!("unsupported schema: {message}")),
        GuestError::Retryable((message, _)) | GuestError::Failed(message) => clean(message),
        GuestError::Other((code, message)) => clean(&format!("{code}: {message}")),
    }
}

/// Text of a plugin made fit for logs and dead letters: no control characters but new lines, at most 4 KiB.
pub(super) fn clean(text: &str) -> String {
    clean_to(text, MESSAGE_BYTES_MAX)
}

/// The same with another length.
pub(super) fn clean_to(text: &str, bytes_max: usize) -> String {
    let cut = text.len() > bytes_max;
    let end = if cut { text.floor_char_boundary(bytes_max) } else { text.len() };
    let (kept, _) = text.split_at(end);
    let mut clean: String = kept.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    if cut {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_plugin_is_cut_at_a_character_and_loses_its_control_characters() {
        assert_eq!(clean("a\u{1b}[31mred\nb\0"), "a [31mred\nb ");
        let long = "é".repeat(MESSAGE_BYTES_MAX);
        let cut = clean(&long);
        assert!(cut.len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
        assert!(cut.ends_with("é…"));
    }
}
