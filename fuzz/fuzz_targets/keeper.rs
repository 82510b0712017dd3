//! libFuzzer around [`wsredis_fuzz::keeper`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::keeper::check(data));
