//! DNS answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use procid::names::message::read;

fuzz_target!(|bytes: &[u8]| {
    let _said = read(bytes);
});
