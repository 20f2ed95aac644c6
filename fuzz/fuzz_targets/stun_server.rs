#![no_main]

#[path = "../entry/stun_server.rs"]
mod stun_server;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stun_server::datagram(bytes));
