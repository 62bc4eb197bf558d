//! What ctnetlink answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use procid::conntrack::message::read;

fuzz_target!(|bytes: &[u8]| {
    let _reply = read(bytes);
});
