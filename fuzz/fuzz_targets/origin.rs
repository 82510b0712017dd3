//! libFuzzer around [`wsredis_fuzz::origin`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::origin::check(data));
