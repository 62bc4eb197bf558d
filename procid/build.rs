//! Compiles `procid-ebpf` and leaves the object in `OUT_DIR`, where
//! `procid::kernel` embeds it.
//!
//! The same sources make the same bytes, wherever they lie: paths in the object
//! are those inside the workspace, a crate or the standard library.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};
use object::{build::elf, elf::SHT_STRTAB};

fn main() -> Result<()> {
    // `core` for bpfel-unknown-none has to be built from source, and paths to be
    // trimmed, which stable cargo allows only with this variable set.
    // Cargo's progress would come back as warnings of this package.
    // SAFETY: a build script has one thread at this point.
    unsafe {
        env::set_var("RUSTC_BOOTSTRAP", "1");
        env::set_var("CARGO_UNSTABLE_TRIM_PATHS", "true");
        env::set_var("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all");
        env::set_var("CARGO_TERM_QUIET", "true");
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
    )?;
    let out_dir = env::var_os("OUT_DIR").context("OUT_DIR is not set")?;
    let object = Path::new(&out_dir).join("procid-ebpf");
    // AYA_BUILD_SKIP leaves none.
    if object.exists() {
        drop_unread(&object).with_context(|| object.display().to_string())?;
    }
    Ok(())
}

/// Takes out of the object what neither the loader nor the kernel reads, four
/// fifths of it: the compiler's DWARF, of which BTF was made, and relocations
/// that BTF has applied already.
fn drop_unread(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    let mut object = elf::Builder::read(bytes.as_slice())?;
    for section in object.sections.iter_mut() {
        let name = section.name.to_vec();
        section.delete = [".debug_", ".rel.debug_", ".rel.BTF"]
            .iter()
            .any(|unread| name.starts_with(unread.as_bytes()));
    }
    // LLVM keeps the names of sections among those of symbols, the builder apart.
    let names = object.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = elf::SectionData::SectionString;
    object.delete_orphans();
    let mut smaller = Vec::new();
    object.write(&mut smaller)?;
    fs::write(path, smaller)?;
    Ok(())
}
