//! `cargo xtask incident`: docs/INCIDENT.md, a theft and what is asked afterwards.

use std::ffi::OsStr;

use anyhow::{Result, bail, ensure};

use crate::{build, host, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write docs/INCIDENT.md and its pictures anew
    #[arg(long)]
    write: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if let Some(reason) = host::no_root_because() {
        bail!("it attaches to the kernel: {reason}");
    }
    setup::for_build()?;
    setup::for_tests()?;
    let (procid, program) = (build::procid()?, build::test_program()?);
    let docs = host::root().join("docs");
    let mut env = vec![
        ("PROCID_BIN", procid.as_os_str()),
        ("PROCID_TESTPROG", program.as_os_str()),
    ];
    if args.write {
        env.push(("PROCID_INCIDENT_TO", docs.as_os_str()));
    }
    let mut test = host::as_root(&build::test_suite("live")?, &env)?;
    test.args(["incident::", "--test-threads=1"].map(OsStr::new));
    ensure!(test.status()?.success(), "the test failed");
    Ok(())
}
