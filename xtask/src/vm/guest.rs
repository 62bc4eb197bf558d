//! One virtual machine: QEMU without hardware virtualization, a kernel, an
//! initramfs, and a command whose output and exit status come back over a
//! serial line.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    kernels::Kernel,
    markers::{Marker, Markers},
    tsc,
};

const QEMU: &str = "qemu-system-x86_64";

/// Everything TCG emulates but `cmpxchg16b`: QEMU 7.2 leaves garbage in the
/// flags after it, and an interrupt taken just then returns through them. The
/// slab allocator of 6.5 and later uses it, and one boot in six died of that.
const CPU: &str = "max,-cx16";

/// A kernel and init take two seconds; a busy host makes it ten.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// What the kernel writes to the console when it is over.
const PANIC: &str = "Kernel panic - not syncing";

/// How many lines of the kernel's console explain a failure.
const CONSOLE_TAIL: usize = 40;

/// A machine to boot.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) initramfs: &'a Path,
    /// Where the kernel's console is written.
    pub(crate) console: &'a Path,
    /// What the initramfs' init marks its messages with.
    pub(crate) nonce: &'a str,
    /// As QEMU's `-m`: `1024M`.
    pub(crate) memory: &'a str,
    /// Further kernel parameters.
    pub(crate) append: &'a str,
    /// How long the command may run, once booted.
    pub(crate) limit: Duration,
    /// Further arguments of QEMU's.
    pub(crate) devices: &'a [&'a str],
}

/// How a machine's run ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The command ended with this status.
    Exit(i32),
    /// Init was never reached.
    NoBoot(&'static str),
}

impl Guest<'_> {
    /// Boots, hands each piece of the command's output to `output`, and
    /// returns the command's exit status. A boot that fails is tried once
    /// more; a command is never run twice.
    ///
    /// # Errors
    ///
    /// When QEMU cannot be started, the machine does not boot, the kernel
    /// panics, or the command takes too long.
    pub(crate) fn run(&self, mut output: impl FnMut(&[u8]) -> io::Result<()>) -> Result<i32> {
        for last in [false, true] {
            match self.run_once(&mut output)? {
                End::Exit(status) => return Ok(status),
                End::NoBoot(reason) if last => {
                    bail!("the machine did not boot: {reason}{}", self.console_tail())
                }
                End::NoBoot(reason) => {
                    let kept = self.console.with_extension("no-boot.log");
                    fs::rename(self.console, &kept)?;
                    let kept = kept.display();
                    eprintln!("vm: {reason} (console: {kept}); booting once more");
                }
            }
        }
        bail!("the machine did not boot")
    }

    fn run_once(&self, output: &mut impl FnMut(&[u8]) -> io::Result<()>) -> Result<End> {
        File::create(self.console).with_context(|| self.console.display().to_string())?;
        let machine = Machine::start(self)?;
        let mut markers = Markers::new(self.nonce);
        let mut deadline = Instant::now() + BOOT_LIMIT;
        let mut booted = false;
        loop {
            let received = machine.serial.recv_timeout(Duration::from_millis(200));
            let bytes = match received {
                Ok(bytes) => bytes,
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) if booted => {
                    bail!("the machine stopped{}", self.console_tail());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // QEMU's own complaints have gone to stderr.
                    return Ok(End::NoBoot("QEMU ended before the machine had booted"));
                }
            };
            let (text, seen) = markers.split(&bytes);
            if booted || seen.contains(&Marker::Boot) {
                output(&text).context("writing the command's output")?;
            }
            for marker in seen {
                match marker {
                    Marker::Boot => {
                        booted = true;
                        deadline = Instant::now() + self.limit;
                    }
                    Marker::Exit(status) => return Ok(End::Exit(status)),
                }
            }
            if bytes.is_empty() && self.has_panicked() {
                bail!("the kernel panicked{}", self.console_tail());
            }
            if Instant::now() > deadline {
                if !booted {
                    return Ok(End::NoBoot("no boot within 60 s"));
                }
                let limit = self.limit.as_secs();
                bail!("the command ran for more than {limit} s: machine stopped");
            }
        }
    }

    fn has_panicked(&self) -> bool {
        fs::read(self.console)
            .is_ok_and(|console| String::from_utf8_lossy(&console).contains(PANIC))
    }

    /// The end of the kernel's console, to append to a message.
    fn console_tail(&self) -> String {
        let console = fs::read(self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<_> = console.lines().collect();
        let tail = &lines[lines.len().saturating_sub(CONSOLE_TAIL)..];
        format!(
            "; its console ({}):\n{}",
            self.console.display(),
            tail.join("\n")
        )
    }
}

/// A running QEMU, killed when dropped.
#[derive(Debug)]
struct Machine {
    qemu: Child,
    /// What the guest writes to its second serial port.
    serial: Receiver<Vec<u8>>,
}

impl Machine {
    fn start(guest: &Guest<'_>) -> Result<Self> {
        let console = guest.console.to_str().context("a path that is not UTF-8")?;
        // Killed with us, however we end.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", QEMU])
            // TCG: nested virtualization is rare, and absent is the same everywhere.
            .args(["-accel", "tcg", "-cpu", CPU, "-smp", "1"])
            // Two serial ports in place of the machine's one: the first is
            // the kernel's console, the second the command's output.
            .args(["-M", "microvm,isa-serial=off"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-monitor", "none"])
            .args(["-chardev", &format!("file,id=console,path={console}")])
            .args(["-chardev", "stdio,id=output,signal=off"])
            .args(["-device", "isa-serial,chardev=console,index=0"])
            .args(["-device", "isa-serial,chardev=output,index=1"])
            .args(["-m", guest.memory])
            .args(guest.devices)
            .arg("-kernel")
            .arg(&guest.kernel.image)
            .arg("-initrd")
            .arg(guest.initramfs)
            // A panic or an oops ends the machine, as -no-reboot says.
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet oops=panic panic=-1 reboot=t tsc_early_khz={} {} {}",
                tsc::khz(),
                guest.kernel.append,
                guest.append
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut qemu = command
            .spawn()
            .context("cannot start setpriv (util-linux) with QEMU")?;
        let stdout = qemu.stdout.take().context("QEMU has no stdout")?;
        let serial = read_all(stdout);
        Ok(Self { qemu, serial })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn read_all(mut pipe: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Removes a file when dropped.
#[derive(Debug)]
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left behind lies in the target directory.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes to stdout at once: a line may come in pieces.
///
/// # Errors
///
/// When stdout is closed.
pub(crate) fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
