//! libFuzzer against streams and files of Arrow IPC.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fs_data_sink_fuzz::arrow_ipc(data));
