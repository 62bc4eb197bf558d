//! Who changes the policy, and whom a rule is to name.

use procid_common::image::ImageId;

use super::{Engine, Item};
use crate::{
    agent::{
        policy::{Now, ask::Caller, blocks::ImageFile},
        render::PolicyNews,
    },
    identity::hash::FileHash,
    policy::Inode,
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

    /// The time, as the records have it.
    pub(in crate::agent) const fn now(&self) -> Now {
        Now {
            boot_ns: self.now_ns,
            clock: self.frame.clock.offset(),
        }
    }
}
