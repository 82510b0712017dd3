//! libFuzzer around [`wsredis_fuzz::handshake`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::handshake::check(data));
