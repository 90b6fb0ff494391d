//! libFuzzer against records of the ledger.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fs_data_sink_fuzz::ledger_record(data));
