//! libFuzzer around [`wsredis_fuzz::frame`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::frame::check(data));
