//! Who changes the policy, and whom a rule is to name.

use std::fs;

use procid_common::image::ImageId;

use super::{Engine, Item};
use crate::{
    agent::{
        policy::{
            Now,
            ask::{Caller, Unhashed},
            blocks::ImageFile,
            explain::Explainee,
            open::Denied,
        },
        render::{PolicyNews, hex},
    },
    identity::hash::{FileHash, Missing},
    policy::Inode,
    records::escape::escape,
};

impl Engine {
    /// Tells what became of the policy.
    pub(in crate::agent) fn policy(&mut self, news: PolicyNews) {
        self.push(Item::Policy(Box::new(news)), self.now_ns);
    }

    /// The image that asks. A process is looked for by its pid, so that the
    /// image is the one it runs now: not that of a moment ago, if it has called
    /// exec since.
    pub(in crate::agent) fn image_of(&self, caller: Caller) -> Option<ImageId> {
        let pid = match caller {
            Caller::Peer { pid, .. } => pid?,
            Caller::Agent => std::process::id(),
            Caller::Signal | Caller::Clock => return None,
        };
        let live = self.images.live().filter(|image| image.id.tgid == pid);
        live.map(|image| image.id).max()
    }

    /// What a rule can say of the image of that entity id.
    pub(in crate::agent) fn file_of(&self, entity_id: &str) -> Option<ImageFile> {
        let image = self.images.by_entity(entity_id)?;
        Some(ImageFile {
            inode: image.exe.map(|file| Inode {
                major: file.major(),
                minor: file.minor(),
                ino: file.ino,
            }),
            sha256: match image.hash {
                FileHash::Known { sha256, .. } => Some(sha256),
                FileHash::None(_) => None,
            },
        })
    }

    /// The image, for `policy explain`.
    pub(in crate::agent) fn explainee(&self, id: &ImageId) -> Explainee {
        let image = self.images.get(id);
        let (sha256, hash) = match image.map(|image| image.hash) {
            Some(FileHash::Known { sha256, grade }) => (Some(hex(&sha256)), grade.name()),
            Some(FileHash::None(why)) => (None, why.name()),
            None => (None, Missing::Pending.name()),
        };
        Explainee {
            entity_id: image.map(|image| image.entity.to_string()),
            executable: image.and_then(|image| Some(escaped(image.path.as_deref()?))),
            sha256,
            hash: hash.to_owned(),
            cgroup: cgroup_of(id.tgid),
            ..Explainee::default()
        }
    }

    /// With the executable of that image.
    pub(in crate::agent) fn with_name(&self, denied: Denied, id: &ImageId) -> Denied {
        let path = self.images.get(id).and_then(|image| image.path.as_deref());
        Denied {
            executable: path.map(escaped),
            ..denied
        }
    }

    /// Whether an image older than that time waits for its hash.
    pub(in crate::agent) fn is_hashing(&self, before_ns: u64) -> bool {
        let mut live = self.images.live();
        live.any(|image| image.hash.is_pending() && image.born_ns <= before_ns)
    }

    /// Images that run a file whose hash is not known.
    pub(in crate::agent) fn unhashed(&self) -> Vec<Unhashed> {
        let mut all: Vec<_> = self
            .images
            .live()
            .filter_map(|image| match image.hash {
                FileHash::None(why) if why != Missing::NoFile => Some(Unhashed {
                    pid: image.id.tgid,
                    entity_id: image.entity.to_string(),
                    executable: image.path.as_deref().map(escaped),
                    reason: why.name().to_owned(),
                }),
                FileHash::None(_) | FileHash::Known { .. } => None,
            })
            .collect();
        all.sort_by_key(|image| image.pid);
        all
    }

    /// The time, as the records have it.
    pub(in crate::agent) const fn now(&self) -> Now {
        Now {
            boot_ns: self.now_ns,
            clock: self.frame.clock.offset(),
        }
    }
}

/// Path of a process's cgroup in the v2 hierarchy.
fn cgroup_of(pid: u32) -> Option<String> {
    let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = all.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(escaped(path.as_bytes()))
}

fn escaped(bytes: &[u8]) -> String {
    escape(bytes).into_owned()
}
