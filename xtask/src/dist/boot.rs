//! A Debian with the package installed boots in a virtual machine, with a policy
//! that denies a port. A service sends there from before the agent starts; a
//! capture outside the machine says what left.
//!
//! The machine boots twice: without procid, to see the first packets leave, and
//! with it, to see that none does, at start, while the agent is killed, restarted
//! and stopped. Purged, the package leaves nothing in force.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::pcap::{self, Protocol, Sent};
use crate::{
    debian, host,
    process::capture,
    vm::{
        self,
        guest::{self, Guest, Temporary},
        kernels, modules,
    },
};

/// The release that is booted, and its kernel.
const SUITE: &str = "trixie";
const KERNEL: &str = "6.12";

/// What is in it beside Debian's essential packages.
const PACKAGES: &str = "ifupdown,iproute2,kmod,systemd-sysv";

/// What init needs for the machine's network.
const MODULES: [&str; 2] = ["virtio_mmio", "virtio_net"];

/// The port denied from the start; allowed; and denied until the purge.
const DENIED: u16 = 9001;
const ALLOWED: u16 = 9002;
const PURGED: u16 = 9003;

/// A file of the machine: place, mode, content.
const FILES: [(&str, u32, &str); 7] = [
    ("init", 0o755, include_str!("boot/init.sh")),
    ("test/sender", 0o755, include_str!("boot/sender.sh")),
    ("test/check", 0o755, include_str!("boot/check.sh")),
    (
        "etc/systemd/system/sender.service",
        0o644,
        include_str!("boot/sender.service"),
    ),
    (
        "etc/systemd/system/check.service",
        0o644,
        include_str!("boot/check.service"),
    ),
    (
        "etc/network/interfaces",
        0o644,
        "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet static\n    address 10.0.2.15/24\n",
    ),
    (
        "etc/procid/policy.toml",
        0o644,
        "mode = \"enforce\"\ndefault = \"allow\"\n[[rule]]\nname = \"nobody\"\naction = \"deny\"\n\
         destination = { port = [9001, 9003] }\n",
    ),
];

/// Boots with `deb` installed.
///
/// # Errors
///
/// When this host cannot, or what is seen is not what must be.
pub(super) fn main(deb: &Path) -> Result<()> {
    if let Some(reason) = vm::unsupported() {
        bail!("no virtual machines here: {reason}");
    }
    ensure!(
        host::is_root(),
        "--boot makes a Debian system: run it as root"
    );
    let dir = host::target_dir().join("boot");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let kernel = kernels::ensure(KERNEL)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let nonce = format!("procid-{:x}-{:x}", process::id(), now.as_nanos());
    let initramfs = Temporary(dir.join(format!("{nonce}.cpio")));
    make(deb, &kernel, &nonce, &dir, &initramfs.0)?;

    let boot = |name: &str, append: &str| -> Result<Vec<Sent>> {
        let capture = dir.join(format!("{name}.pcap"));
        let guest = Guest {
            kernel: &kernel,
            initramfs: &initramfs.0,
            console: &dir.join(format!("{name}.log")),
            nonce: &nonce,
            memory: "2048M",
            append: &format!("systemd.mask=serial-getty@ttyS0.service {append}"),
            limit: Duration::from_secs(400),
            // A network of its own that leads nowhere, and what it is asked to carry.
            devices: &[
                "-netdev",
                "user,id=net,restrict=on",
                "-device",
                "virtio-net-device,netdev=net",
                "-object",
                &format!("filter-dump,id=dump,netdev=net,file={}", capture.display()),
            ],
        };
        let status = guest.run(guest::to_stdout)?;
        ensure!(status == 0, "the checks in the machine ended with {status}");
        pcap::sent(&fs::read(&capture).with_context(|| capture.display().to_string())?)
    };
    let count = |sent: &[Sent], port| sent.iter().filter(|it| it.port == port).count();

    println!("==== without procid");
    let sent = boot("without", "systemd.mask=procid.service")?;
    let (denied, allowed) = (count(&sent, DENIED), count(&sent, ALLOWED));
    println!("{denied} packets to the denied port, {allowed} to the other");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let port = DENIED;
        ensure!(
            sent.contains(&Sent { protocol, port }),
            "no {protocol:?} was sent: the test would see no escape"
        );
    }

    println!("==== with procid");
    let sent = boot("with", "")?;
    let (denied, allowed) = (count(&sent, DENIED), count(&sent, ALLOWED));
    let purged = count(&sent, PURGED);
    println!(
        "{denied} packets to the denied port, {allowed} to the other, {purged} after the purge"
    );
    ensure!(allowed > 0, "the network did not come up");
    ensure!(denied == 0, "{denied} packets escaped the policy");
    ensure!(
        purged > 0,
        "purged, the package has left its policy in force"
    );
    Ok(())
}

/// Makes the machine's file system, packed as the kernel takes it.
fn make(deb: &Path, kernel: &kernels::Kernel, nonce: &str, dir: &Path, to: &Path) -> Result<()> {
    let base = base()?;
    let work = tempfile::tempdir_in(dir)?;
    let root = work.path();
    capture(Command::new("tar").arg("-xf").arg(base).arg("-C").arg(root))?;
    fs::copy(deb, root.join("procid.deb"))?;
    let mut dpkg = Command::new("chroot");
    dpkg.arg(root).args(["dpkg", "--install", "/procid.deb"]);
    dpkg.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    capture(dpkg.env("DEBIAN_FRONTEND", "noninteractive"))?;

    let write = |place: &str, mode: u32, content: &[u8]| -> Result<()> {
        let file = root.join(place);
        let above = file.parent().context("a file without a directory")?;
        fs::create_dir_all(above)?;
        fs::write(&file, content).with_context(|| file.display().to_string())?;
        Ok(fs::set_permissions(
            &file,
            fs::Permissions::from_mode(mode),
        )?)
    };
    for (place, mode, content) in FILES {
        write(place, mode, content.replace("NONCE", nonce).as_bytes())?;
    }
    // As an administrator would: a line of the settings that the package has put there.
    let settings = fs::read_to_string(root.join("etc/procid/procid.toml"))?;
    let settings = settings.replace("#policy =", "policy =");
    write("etc/procid/procid.toml", 0o644, settings.as_bytes())?;
    let mut order = String::new();
    for (name, content) in modules::find(&kernel.dir, &MODULES)? {
        write(&format!("modules/{name}"), 0o644, &content)?;
        order.push_str(&name);
        order.push('\n');
    }
    write("modules/order", 0o644, order.as_bytes())?;
    let mut enable = Command::new("chroot");
    enable
        .arg(root)
        .args(["systemctl", "enable", "sender", "check"]);
    capture(enable.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))?;

    let mut pack = Command::new("sh");
    pack.args([
        "-c",
        "find . -print0 | cpio --null --quiet -o -H newc >\"$1\"",
        "sh",
    ]);
    capture(pack.arg(to).current_dir(root)).map(drop)
}

/// A Debian without procid, made once and kept in the cache.
fn base() -> Result<PathBuf> {
    let dir = host::cache_dir()?.join("boot");
    let base = dir.join(format!("{SUITE}.tar"));
    if base.exists() {
        return Ok(base);
    }
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    eprintln!("setup: a Debian {SUITE} (some minutes) ...");
    let unfinished = tempfile::tempdir_in(&dir)?;
    let tar = unfinished.path().join("base.tar");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--mode=root", "--variant=minbase", "--quiet"]);
    mmdebstrap.arg(format!("--include={PACKAGES}"));
    for part in ["doc", "locale", "man"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{part}/*"));
    }
    mmdebstrap.arg(SUITE).arg(&tar).arg(debian::mirror()?);
    capture(&mut mmdebstrap)?;
    fs::rename(&tar, &base).with_context(|| base.display().to_string())?;
    Ok(base)
}
