//! Policies: what is wrong with one has a place in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use procid::{api::accounts::Accounts, policy::text::parse};

fuzz_target!(|text: &str| {
    if let Err(wrong) = parse(text, "p.toml", &Accounts) {
        assert!(!wrong.is_empty());
    }
});
