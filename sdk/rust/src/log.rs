//! Log lines of a plugin. The host adds the plugin's and the pipeline's names, and bounds the rate.
//!
//! In native tests lines are remembered for [`crate::testing::take_logs`].

/// How urgent a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the author.
    Debug,
    /// For the record.
    Info,
    /// Somebody should look at it.
    Warn,
    /// Something failed.
    Error,
}

/// A line for the author.
pub fn debug(message: &str) {
    log(Level::Debug, message);
}

/// A line for the record.
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// Somebody should look at it.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// Something failed. A row that cannot be used is better refused, with [`crate::Output::reject`].
pub fn error(message: &str) {
    log(Level::Error, message);
}

/// Writes a log line.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    {
        use crate::guest::bindings::wasi::logging::logging as wasi;
        let level = match level {
            Level::Debug => wasi::Level::Debug,
            Level::Info => wasi::Level::Info,
            Level::Warn => wasi::Level::Warn,
            Level::Error => wasi::Level::Error,
        };
        wasi::log(level, "", message);
    }
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::remember(|said| said.logs.push((level, message.to_owned())));
}
