//! libFuzzer against records of JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fs_data_sink_fuzz::json(data));
