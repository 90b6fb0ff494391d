//! libFuzzer against records and files of Avro.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fs_data_sink_fuzz::avro(data));
