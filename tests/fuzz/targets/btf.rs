//! The kernel's own description of its types.

#![no_main]

use libfuzzer_sys::fuzz_target;
use procid::kernel::btf::KernelTypes;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(types) = KernelTypes::parse(bytes) {
        let _offsets = types.offsets();
    }
});
