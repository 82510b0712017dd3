//! libFuzzer around [`wsredis_fuzz::resp`].
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wsredis_fuzz::resp::check(data));
