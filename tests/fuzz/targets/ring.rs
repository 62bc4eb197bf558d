//! Events of the ring.

#![no_main]

use libfuzzer_sys::fuzz_target;
use procid::decode::{decode, time_of};

fuzz_target!(|bytes: &[u8]| {
    let _time = time_of(bytes);
    let _event = decode(bytes);
});
