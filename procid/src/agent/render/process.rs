//! Process objects.

use procid_common::{
    image::{FileState, ImageId, flags},
    process::Actor,
};

use super::{Renderer, absent};
use crate::{
    agent::settings::Args,
    identity::{
        entity::EntityId,
        hash::FileHash,
        image::{Image, Provenance},
        script::Script,
    },
    records::{
        self, Cgroup, Exe, HashState, Id, ParentState, Process, Procid, Record, Related,
        ScriptHash, Sha256, Thread, User, escape::escape, line::command_line,
    },
    time::rfc3339_ns,
};

/// An id that was never set, as the kernel has it.
const UNSET: u32 = u32::MAX;

impl Renderer<'_> {
    pub(super) fn entity(&self, id: &ImageId) -> String {
        self.images
            .get(id)
            .map_or_else(
                || EntityId::new(&self.frame.boot_id, id),
                |image| image.entity,
            )
            .to_string()
    }

    /// The process object of a record about an image, and all that the record
    /// says elsewhere of that image: file, hash, ancestry, flags, and what is
    /// not known of it.
    pub(super) fn put_image(&self, record: &mut Record, procid: &mut Procid, id: &ImageId) {
        let process = record.process.get_or_insert_default();
        let Some(image) = self.images.get(id) else {
            **process = self.unseen(id);
            let reason = "its exec was not seen";
            absent(procid, "process.executable", reason);
            absent(procid, "process.parent", reason);
            absent(procid, "procid.hash", reason);
            return;
        };
        **process = self.process(image);
        process.parent = self.parent(image, procid).map(Box::new);
        let ancestry = self.images.ancestry(id);
        procid.ancestry =
            (!ancestry.is_empty()).then(|| ancestry.iter().map(EntityId::to_string).collect());
        procid.exe = image.exe.as_ref().map(exe);
        procid.hash = Some(hash_state(image.hash));
        procid.script = image.script.as_deref().map(script);
        let hashes = [Some(&**process), process.parent.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(|process| Some(&process.hash.as_ref()?.sha256));
        let script = procid.script.as_ref();
        let hashes = hashes.chain(script.and_then(|script| script.hash.sha256.as_ref()));
        let related = record.related.get_or_insert_with(Related::default);
        for hash in hashes {
            if !related.hash.contains(hash) {
                related.hash.push(hash.clone());
            }
        }
        if related.hash.is_empty() && related.ip.is_empty() {
            record.related = None;
        }
        put_flags(procid, image.flags);
        if image.path.is_none() && image.flags & flags::KTHREAD == 0 {
            absent(procid, "process.executable", no_path(image.flags));
        }
    }

    /// An image with its file and arguments, without parent and credentials.
    pub(super) fn process(&self, image: &Image) -> Process {
        let mut process = self.brief(image);
        process.vpid = Some(image.actor.vpid).filter(|vpid| *vpid != 0);
        if self.frame.args == Args::Full
            && let Some(args) = &image.args
            && !args.is_empty()
        {
            let args: Vec<String> = args.iter().map(|arg| escape(arg).into_owned()).collect();
            process.command_line = Some(command_line(&args));
            process.args = Some(args);
        }
        process
    }

    /// What a record says of another image than its own.
    pub(super) fn brief(&self, image: &Image) -> Process {
        Process {
            entity_id: Some(image.entity.to_string()),
            pid: Some(image.id.tgid),
            name: name(image),
            executable: image.path.as_deref().map(|path| escape(path).into_owned()),
            start: Some(self.start(&image.id)),
            hash: sha256(image.hash),
            ..Process::default()
        }
    }

    /// [`Self::brief`] of an image that may not be known.
    pub(super) fn brief_of(&self, id: &ImageId) -> Process {
        self.images
            .get(id)
            .map_or_else(|| self.unseen(id), |image| self.brief(image))
    }

    /// [`Self::process`] of an image that may not be known.
    pub(super) fn process_of(&self, id: &ImageId) -> Process {
        self.images
            .get(id)
            .map_or_else(|| self.unseen(id), |image| self.process(image))
    }

    fn unseen(&self, id: &ImageId) -> Process {
        Process {
            entity_id: Some(self.entity(id)),
            pid: Some(id.tgid),
            start: Some(self.start(id)),
            ..Process::default()
        }
    }

    fn start(&self, id: &ImageId) -> String {
        rfc3339_ns(self.frame.clock.started(id.start_boottime))
    }

    fn parent(&self, image: &Image, procid: &mut Procid) -> Option<Process> {
        let Some(id) = image.parent else {
            // The first process and the first kernel thread have none.
            if image.id.tgid > 2 {
                absent(procid, "process.parent", no_parent(image));
            }
            return None;
        };
        let hash = self.images.get(&id).map(|parent| hash_state(parent.hash));
        if hash.is_some() {
            procid.parent = Some(ParentState { hash });
        } else {
            absent(procid, "procid.parent", "its exec was not seen");
        }
        Some(self.brief_of(&id))
    }
}

fn exe(file: &FileState) -> Exe {
    Exe {
        dev: format!("{}:{}", file.major(), file.minor()),
        inode: file.ino.to_string(),
    }
}

fn script(script: &Script) -> records::Script {
    let found = script.found();
    let state = hash_state(found.hash);
    records::Script {
        path: escape(&script.path).into_owned(),
        exe: found.file.as_ref().map(exe),
        hash: ScriptHash {
            sha256: sha256(found.hash).map(|hash| hash.sha256),
            grade: state.grade,
            reason: state.reason,
        },
    }
}

/// The executable's base name; a kernel thread's own.
fn name(image: &Image) -> Option<String> {
    let name = match &image.path {
        Some(path) => path.rsplit(|byte| *byte == b'/').next()?,
        None if image.flags & flags::KTHREAD != 0 => comm(&image.actor),
        None => return None,
    };
    text(name)
}

/// Credentials, thread and cgroup of a task at one moment.
pub(super) fn put_actor(record: &mut Record, procid: &mut Procid, actor: &Actor) {
    let id = |number: u32| {
        Some(Id {
            id: number.to_string(),
        })
    };
    let creds = &actor.creds;
    let user = User {
        id: creds.euid.to_string(),
        name: None,
    };
    let process = record.process.get_or_insert_default();
    process.user = Some(user.clone());
    process.group = id(creds.egid);
    process.real_user = id(creds.uid);
    process.real_group = id(creds.gid);
    process.thread = Some(Thread {
        id: Some(actor.tid),
        name: text(comm(actor)),
    });
    record.user = Some(user);
    procid.loginuid = Some(creds.loginuid).filter(|id| *id != UNSET);
    procid.sessionid = Some(creds.sessionid).filter(|id| *id != UNSET);
    procid.cgroup = (actor.cgroup != 0).then(|| Cgroup {
        id: actor.cgroup.to_string(),
        path: None,
    });
}

pub(super) const fn provenance(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Live => "live",
        Provenance::Snapshot => "snapshot",
    }
}

fn put_flags(procid: &mut Procid, image_flags: u32) {
    const WORDS: [(u32, &str); 9] = [
        (flags::KTHREAD, "kernel"),
        (flags::FORKED, "forked"),
        (flags::DELETED, "deleted"),
        (flags::MEMFD, "memfd"),
        (flags::OVERLAY, "overlay"),
        (flags::PATH_TRUNCATED, "path-truncated"),
        (flags::PATH_UNREACHABLE, "path-unreachable"),
        (flags::ARGS_TRUNCATED, "args-truncated"),
        (flags::ARGS_UNREADABLE, "args-unreadable"),
    ];
    let set = WORDS.iter().filter(|(flag, _)| image_flags & flag != 0);
    procid.flags.extend(set.map(|(_, word)| (*word).to_owned()));
}

const fn no_path(image_flags: u32) -> &'static str {
    if image_flags & flags::PATH_TRUNCATED != 0 {
        "the path is deeper or longer than procid follows"
    } else if image_flags & flags::PATH_UNREACHABLE != 0 {
        "the path leads out of the process's root directory"
    } else if image_flags & flags::NO_EXE != 0 {
        "no executable could be read from this task"
    } else {
        "the exec that loaded it was not seen"
    }
}

const fn no_parent(image: &Image) -> &'static str {
    if image.flags & flags::PARENT_UNSURE != 0 {
        "the process was found running; its present parent may not have forked it"
    } else {
        "its fork was not seen"
    }
}

pub(super) fn hash_state(hash: FileHash) -> HashState {
    let (grade, reason) = match hash {
        FileHash::Known { grade, .. } => (grade.name(), None),
        FileHash::None(missing) => ("none", Some(missing.name().to_owned())),
    };
    HashState {
        grade: grade.to_owned(),
        reason,
    }
}

fn sha256(hash: FileHash) -> Option<Sha256> {
    match hash {
        FileHash::Known { sha256, .. } => Some(Sha256 {
            sha256: hex(&sha256),
        }),
        FileHash::None(_) => None,
    }
}

/// Lower-case hexadecimal.
pub(in crate::agent) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text
}

/// A name made harmless; an empty one (a task may call itself so) is none.
fn text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| escape(bytes).into_owned())
}

/// The name of a task, up to its NUL.
fn comm(actor: &Actor) -> &[u8] {
    actor.comm.split(|byte| *byte == 0).next().unwrap_or(&[])
}
