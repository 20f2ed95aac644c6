#![no_main]

#[path = "../entry/port_map.rs"]
#[allow(dead_code)]
mod port_map;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| port_map::document(bytes));
