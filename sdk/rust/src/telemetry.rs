//! Log lines and metrics of a plugin. The host adds the plugin's and the pipeline's names, and bounds the rate.
//!
//! In native tests nothing is written.

/// Metrics, under the plugin's name.
pub mod metrics {
    /// Adds to a counter.
    pub fn count(name: &str, amount: u64) {
        #[cfg(target_arch = "wasm32")]
        crate::guest::bindings::fs_data_sink::plugin::metrics::count(name, amount);
        #[cfg(not(target_arch = "wasm32"))]
        let _ = (name, amount);
    }

    /// Sets a gauge.
    pub fn gauge(name: &str, value: f64) {
        #[cfg(target_arch = "wasm32")]
        crate::guest::bindings::fs_data_sink::plugin::metrics::gauge(name, value);
        #[cfg(not(target_arch = "wasm32"))]
        let _ = (name, value);
    }
}

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
    let _ = (level, message);
}
