#![no_main]

#[path = "../entry/stun.rs"]
#[allow(dead_code)]
mod stun;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stun::typed(bytes));
