//! libFuzzer around [`wsredis_fuzz::envelope`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::envelope::check(data));
