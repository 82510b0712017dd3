//! libFuzzer around [`wsredis_fuzz::ini`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::ini::check(data));
