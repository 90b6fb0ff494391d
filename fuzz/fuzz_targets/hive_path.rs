//! libFuzzer against Hive directories.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fs_data_sink_fuzz::hive_path(data));
