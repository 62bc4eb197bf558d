//! Compiles `procid-ebpf` and leaves the object in `OUT_DIR`, where
//! `procid::kernel` embeds it.

use anyhow::Result;
use aya_build::{Package, Toolchain};

fn main() -> Result<()> {
    // `core` for bpfel-unknown-none has to be built from source, which stable
    // cargo allows only with this variable set.
    // Cargo's progress would come back as warnings of this package.
    // SAFETY: a build script has one thread at this point.
    unsafe {
        std::env::set_var("RUSTC_BOOTSTRAP", "1");
        std::env::set_var("CARGO_TERM_QUIET", "true");
    }
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../procid-ebpf");
    println!(
        "cargo:rerun-if-changed={}",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../procid-common")
    );
    aya_build::build_ebpf(
        [Package {
            name: "procid-ebpf",
            root_dir,
            ..Package::default()
        }],
        Toolchain::Custom("1.95.0"),
    )
}
