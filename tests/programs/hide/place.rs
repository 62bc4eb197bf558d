//! Where an executable can lie, and who can run it.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use procid_tests::{
    truth::{FileId, print_line},
    way::Flow,
};
use rustix::{
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::{image, told};
use crate::{
    hand::{
        child::{forked, spawned},
        copies::{Copies, copy_to},
        flow::unsupported,
        peer::Peer,
    },
    memfd::fexecve,
};

/// This program, to run another one somewhere else.
fn enter(how: &[&str], program: &Path, arguments: Vec<OsString>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("enter").args(how).arg("--").arg(program);
    command.args(arguments);
    command
}

/// SOURCE:TARGET, as `enter` takes it.
fn bind(source: &Path, target: &Path) -> Result<String> {
    let (source, target) = (source.to_str(), target.to_str());
    let both = source.zip(target).context("an odd path")?;
    Ok(format!("{}:{}", both.0, both.1))
}

pub(crate) fn renamed_over() -> Result<()> {
    let copies = Copies::new()?;
    let program = copies.copy("renamed-over")?;
    let file = FileId::of(&program)?;
    let peer = Peer::server()?;
    let mut command = image::command(&program, peer.address);
    command.args(["--lie", "renamed-over", "--other"]);
    command.arg(copies.copy("other")?);
    told(spawned(&mut command)?, &file, peer)?;
    ensure!(FileId::of(&program)? != file, "the file was not replaced");
    Ok(())
}

/// Nobody but the image itself can look at its file.
pub(crate) fn memfd() -> Result<()> {
    let peer = Peer::server()?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["memfd", "--", "hidden"]);
    command.args(image::arguments(peer.address));
    let flow: Flow = spawned(&mut command)?.only_line()?;
    let here = FileId::of(Path::new("/proc/self/exe"))?;
    ensure!(flow.actor.exe != here, "it runs this file");
    print_line(&flow)?;
    peer.agrees_with(&flow)
}

pub(crate) fn fexecve_deleted() -> Result<()> {
    let copies = Copies::new()?;
    let program = copies.copy("deleted")?;
    let file = FileId::of(&program)?;
    let peer = Peer::server()?;
    let child = forked(|| {
        let opened = File::open(&program)?;
        fs::remove_file(&program)?;
        let mut arguments = image::arguments(peer.address);
        arguments.insert(0, "deleted".into());
        fexecve(&opened, arguments)
    })?;
    told(child, &file, peer)
}

pub(crate) fn hard_link() -> Result<()> {
    let copies = Copies::new()?;
    let program = copies.copy("first-name")?;
    let second = copies.path().join("second-name");
    fs::hard_link(&program, &second)?;
    let peer = Peer::server()?;
    let child = spawned(&mut image::command(second, peer.address))?;
    told(child, &FileId::of(&program)?, peer)
}

pub(crate) fn bind_mount() -> Result<()> {
    let copies = Copies::new()?;
    let program = copies.copy("hidden")?;
    let innocent = copies.copy("innocent")?;
    let peer = Peer::server()?;
    let how = ["--bind", &bind(&program, &innocent)?];
    let mut command = enter(&how, &innocent, image::arguments(peer.address));
    told(spawned(&mut command)?, &FileId::of(&program)?, peer)
}

/// Below the new root the path leads to the hidden file, elsewhere to an
/// innocent one.
pub(crate) fn chroot() -> Result<()> {
    let copies = Copies::new()?;
    let program = copies.copy("hidden")?;
    let innocent = copies.copy("innocent")?;
    let root = copies.directory("root")?;
    let peer = Peer::server()?;
    let how = ["--root", &root, "--bind", &bind(&program, &innocent)?];
    let mut command = enter(&how, &innocent, image::arguments(peer.address));
    told(spawned(&mut command)?, &FileId::of(&program)?, peer)
}

/// Both ends are in the container, where the hidden image is process 1.
pub(crate) fn container() -> Result<()> {
    let copies = Copies::new()?;
    let program = copies.copy("hidden")?;
    let innocent = copies.copy("innocent")?;
    let root = copies.directory("root")?;
    let mut how = vec!["--net-ns", "--loopback", "--user-ns", "--pid-ns"];
    let bound = bind(&program, &innocent)?;
    how.extend(["--root", &root, "--bind", &bound]);
    let mut command = enter(&how, &innocent, vec!["hide-image".into()]);
    let mut running = spawned(&mut command)?;
    let file = FileId::of(&program)?;
    for _ in 0..2 {
        let flow: Flow = running.line()?;
        let actor = &flow.actor;
        ensure!(actor.exe == file, "{actor:?} does not run {file:?}");
        ensure!(actor.pid != actor.vpid, "{actor:?} is in no container");
        print_line(&flow)?;
    }
    running.ended()
}

/// The file is in the lower layer.
pub(crate) fn overlay() -> Result<()> {
    let copies = Copies::new()?;
    let peer = Peer::server()?;
    let mut child = forked(|| {
        let Some(program) = in_overlay(copies.path())? else {
            print_line(&None::<FileId>)?;
            return Ok(());
        };
        print_line(&Some(FileId::of(&program)?))?;
        Err(image::command(program, peer.address).exec().into())
    })?;
    match child.line()? {
        Some(file) => told(child, &file, peer),
        None => unsupported("no overlay file system (ENODEV)"),
    }
}

/// A mount namespace with an overlay in which this program is; `None`: this
/// kernel has none. Both layers are in one file system.
fn in_overlay(place: &Path) -> Result<Option<PathBuf>> {
    // SAFETY: no descriptor table is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None)?;
    for layer in ["lower", "upper", "work", "merged"] {
        fs::create_dir(place.join(layer))?;
    }
    copy_to(&place.join("lower/hidden"))?;
    let layers = c"lowerdir=lower,upperdir=upper,workdir=work";
    std::env::set_current_dir(place)?;
    let merged = place.join("merged");
    match mount("overlay", &merged, "overlay", MountFlags::empty(), layers) {
        Err(Errno::NODEV) => Ok(None),
        done => {
            done.context("overlay")?;
            Ok(Some(merged.join("hidden")))
        }
    }
}

/// Five images before the one that connects.
pub(crate) fn exec_chain() -> Result<()> {
    let copies = Copies::new()?;
    let peer = Peer::server()?;
    let last = copies.copy("last")?;
    let mut arguments = image::arguments(peer.address);
    arguments.insert(0, last.clone().into());
    for number in (0..5).rev() {
        let before = copies.copy(&format!("before-{number}"))?;
        arguments.splice(0..0, [before.into(), "enter".into(), "--".into()]);
    }
    let mut command = Command::new(arguments.remove(0));
    command.args(arguments);
    told(spawned(&mut command)?, &FileId::of(&last)?, peer)
}

pub(crate) fn thread_exec() -> Result<()> {
    let copies = Copies::new()?;
    let program = copies.copy("by-a-thread")?;
    let file = FileId::of(&program)?;
    let peer = Peer::server()?;
    let child = forked(|| {
        let mut command = image::command(&program, peer.address);
        thread::scope(|scope| {
            scope
                .spawn(|| Err(command.exec().into()))
                .join()
                .unwrap_or_else(|_| bail!("the thread panicked"))
        })
    })?;
    told(child, &file, peer)
}

pub(crate) fn other_user() -> Result<()> {
    const NOBODY: u32 = 65534;
    let copies = Copies::new()?;
    let program = copies.copy("of-nobody")?;
    let peer = Peer::server()?;
    let mut command = image::command(&program, peer.address);
    let child = spawned(command.uid(NOBODY).gid(NOBODY))?;
    told(child, &FileId::of(&program)?, peer)
}
