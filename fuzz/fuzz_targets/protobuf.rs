//! libFuzzer against messages of Protobuf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fs_data_sink_fuzz::protobuf(data));
