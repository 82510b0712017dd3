//! libFuzzer around [`wsredis_fuzz::message`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::message::check(data));
