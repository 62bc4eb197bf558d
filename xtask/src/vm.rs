//! `cargo xtask vm`: a command as root on a Debian kernel, in a virtual
//! machine that lives as long as the command.

pub(crate) mod guest;
mod initramfs;
pub(crate) mod kernels;
mod markers;
pub(crate) mod modules;
mod tsc;

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};

use self::{
    guest::{Guest, Temporary},
    initramfs::Initramfs,
    kernels::Kernel,
};
use crate::{build, host, setup};

/// Machines booted by this process.
static BOOTS: AtomicUsize = AtomicUsize::new(0);

/// Where files lie in the guest; it is on PATH.
const FILES: &str = "/procid";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The guest runs on QEMU's emulation (no /dev/kvm is used) from an initramfs with busybox. \
procid, procid-testprog and each --file lie in /procid, which is on PATH, beside the shared \
libraries they need; PROCID_BIN and PROCID_TESTPROG name the first two. /proc, /sys, /dev, \
/tmp, /run, cgroup v2, bpffs, tracefs and securityfs are mounted, and lo is up. Modules for \
SCTP, DCCP, TLS, vsock, RxRPC, SMC, overlayfs and veth are loaded as far as the kernel's \
package has them; nothing loads others. `ip` (which knows no mptcp) and `sysctl` are \
busybox's. stdout and stderr of COMMAND arrive on stdout; its exit status is returned. With several kernels, all \
are run and the first failure is returned. Kernels are kept in ~/.cache/procid \
(PROCID_CACHE).

Example:
  cargo xtask vm --kernel 6.1 --kernel 6.12 -- sh -c 'uname -r; procid doctor'")]
pub(crate) struct Args {
    /// Debian kernel to boot: 5.10, 6.1, 6.12, 7.2, 7.3; may be repeated
    #[arg(long = "kernel", value_name = "VERSION", required = true)]
    kernels: Vec<String>,
    /// File to take into the guest, as /procid/NAME; may be repeated
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The guest's memory, as QEMU takes it
    #[arg(long, default_value = "1024M")]
    memory: String,
    /// Kernel parameters to add
    #[arg(
        long,
        value_name = "PARAMETERS",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// Seconds that COMMAND may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// Command to run as root
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if let Some(reason) = unsupported() {
        bail!("no virtual machines here: {reason}");
    }
    setup::for_build()?;
    let mut job = Job::new(&args.command)?;
    job.memory.clone_from(&args.memory);
    job.append(&args.append);
    job.limit = Duration::from_secs(args.timeout);
    for file in &args.files {
        let name = file.file_name().context("--file names no file")?;
        job.add_file(file, name);
    }
    let mut failure = 0;
    for kernel in &args.kernels {
        let status = job.run(kernel, &mut guest::to_stdout)?;
        if failure == 0 {
            failure = status;
        }
    }
    process::exit(failure)
}

/// Why this host can run no virtual machine; `None` when it can.
pub(crate) fn unsupported() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("the guests are x86_64, this host is not".to_owned());
    }
    ["qemu-system-x86_64", "busybox", "setpriv", "modinfo"]
        .into_iter()
        .find(|program| host::find_program(program).is_none())
        .map(|program| format!("{program} is not installed (`cargo xtask setup` as root)"))
}

/// A command to run in virtual machines, with procid and the test program.
#[derive(Debug)]
pub(crate) struct Job {
    command: Vec<OsString>,
    /// Paths on the host, and names in the guest.
    files: Vec<(PathBuf, OsString)>,
    memory: String,
    append: String,
    limit: Duration,
}

impl Job {
    /// Builds procid and the test program to run `command` beside.
    ///
    /// # Errors
    ///
    /// When a build fails.
    pub(crate) fn new(command: &[OsString]) -> Result<Self> {
        Ok(Self {
            command: command.to_vec(),
            files: vec![
                (build::procid()?, "procid".into()),
                (build::test_program()?, "procid-testprog".into()),
            ],
            memory: "1024M".to_owned(),
            append: String::new(),
            limit: Duration::from_secs(3600),
        })
    }

    /// Takes the host's `file` into the guest as `/procid/NAME`.
    pub(crate) fn add_file(&mut self, file: &Path, name: &OsStr) {
        self.files.push((file.to_owned(), name.to_owned()));
    }

    /// Boots with these kernel parameters, too.
    pub(crate) fn append(&mut self, parameters: &str) {
        parameters.clone_into(&mut self.append);
    }

    /// Runs the command on `kernel` and returns its exit status.
    ///
    /// # Errors
    ///
    /// When there is no such kernel, or the machine fails.
    pub(crate) fn run(
        &self,
        kernel: &str,
        output: &mut impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<i32> {
        let image = kernels::ensure(kernel)?;
        let dir = host::target_dir().join("vm");
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let nonce = format!("procid-{:x}-{:x}", process::id(), now.as_nanos());
        let initramfs = Temporary(dir.join(format!("initramfs-{nonce}.cpio")));
        // The same few names at each run: they are for who looks into a failure.
        let turn = BOOTS.fetch_add(1, Ordering::Relaxed);
        self.write_initramfs(&image, &initramfs.0, &nonce, now)?;
        let guest = Guest {
            kernel: &image,
            initramfs: &initramfs.0,
            console: &dir.join(format!("console-{kernel}-{turn}.log")),
            nonce: &nonce,
            memory: &self.memory,
            append: &self.append,
            limit: self.limit,
            devices: &[],
        };
        guest
            .run(output)
            .with_context(|| format!("kernel {kernel}"))
    }

    fn write_initramfs(
        &self,
        kernel: &Kernel,
        path: &Path,
        nonce: &str,
        now: Duration,
    ) -> Result<()> {
        let mut archive = Initramfs::create(path)?;
        for dir in [
            "/proc",
            "/sys",
            "/run",
            "/etc",
            "/usr/bin",
            "/usr/sbin",
            "/sbin",
            "/var/lib",
        ] {
            archive.directory(dir, 0o755)?;
        }
        archive.directory("/root", 0o700)?;
        archive.directory("/tmp", 0o1777)?;
        // Before devtmpfs is mounted, init's own descriptors.
        archive.character_device("/dev/console", (5, 1))?;
        let init = include_str!("vm/init.sh")
            .replace("NONCE", nonce)
            .replace("NOW", &now.as_secs().to_string());
        archive.file("/init", 0o755, init.as_bytes())?;
        archive.file("/command", 0o755, &script(&self.command))?;
        archive.file(
            "/etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )?;
        archive.file(
            "/etc/group",
            0o644,
            b"root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
        )?;
        archive.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
        let busybox = host::find_program("busybox").context("busybox is not installed")?;
        archive.host_file(&busybox, "/bin/busybox")?;
        let mut order = String::new();
        for (name, content) in modules::find(&kernel.dir, &modules::TESTED)? {
            archive.file(Path::new("/modules").join(&name), 0o644, &content)?;
            order.push_str(&name);
            order.push('\n');
        }
        archive.file("/modules/order", 0o644, order.as_bytes())?;
        for (file, name) in &self.files {
            archive.host_file(file, Path::new(FILES).join(name))?;
        }
        archive.finish()
    }
}

/// A shell script that runs `command`, each word as it is.
fn script(command: &[OsString]) -> Vec<u8> {
    let mut script = format!(
        "#!/bin/sh\nexport RUST_BACKTRACE=1 PROCID_VM=1 PROCID_BIN={FILES}/procid PROCID_TESTPROG={FILES}/procid-testprog\nexec"
    )
    .into_bytes();
    for word in command {
        script.extend_from_slice(b" '");
        for &byte in word.as_bytes() {
            match byte {
                b'\'' => script.extend_from_slice(br"'\''"),
                _ => script.push(byte),
            }
        }
        script.push(b'\'');
    }
    script.push(b'\n');
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_command_as_they_are() {
        let words = ["printf", "%s|", "", "a b", "it's", "$HOME `x` \\ \"", "\n"];
        let script = script(&words.map(OsString::from));
        let output = process::Command::new("sh")
            .arg("-c")
            .arg(OsStr::from_bytes(&script))
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"|a b|it's|$HOME `x` \\ \"|\n|");
    }
}
