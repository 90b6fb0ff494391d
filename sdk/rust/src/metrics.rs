//! Counters and gauges of a plugin. The host exports them with the plugin's and the pipeline's names; of names it takes
//! 64, of letters, digits, `_`, `.`, `-`, `/`.
//!
//! In native tests they are remembered for [`crate::testing::take_counts`] and [`crate::testing::take_gauges`].

/// Adds to a counter.
pub fn count(name: &str, amount: u64) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::bindings::fs_data_sink::plugin::metrics::count(name, amount);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::remember(|said| *said.counts.entry(name.to_owned()).or_default() += amount);
}

/// Sets a gauge.
pub fn gauge(name: &str, value: f64) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::bindings::fs_data_sink::plugin::metrics::gauge(name, value);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::remember(|said| {
        said.gauges.insert(name.to_owned(), value);
    });
}
