//! libFuzzer around [`wsredis_fuzz::grant`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::grant::check(data));
