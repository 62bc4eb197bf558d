//! The images that a policy asks about as ancestors and parents.

use procid_common::image::{ImageId, flags};

use crate::{
    identity::{hash::FileHash, image::Provenance, images::Images},
    policy::lineage::{Before, Family, Member},
};

/// Every image that is known, and what came before it.
pub(in crate::agent) fn family(images: &Images) -> Family {
    let init = images.live().find(|image| image.id.tgid == 1);
    let init: Option<ImageId> = init.map(|image| image.id);
    let all = images.all().map(|image| {
        let before = if image.id.tgid == 1 || image.flags & flags::KTHREAD != 0 {
            Before::Nothing
        } else if let Some(parent) = image.parent {
            Before::Forker(parent)
        } else if let Some(init) = init
            && image.flags & flags::BY_INIT != 0
        {
            Before::Forker(init)
        } else if image.provenance == Provenance::Snapshot {
            Before::Older
        } else {
            Before::Unknown
        };
        let member = Member {
            found: image.provenance == Provenance::Snapshot,
            before,
            exe: image.exe,
            sha256: match image.hash {
                FileHash::Known { sha256, .. } => Some(sha256),
                FileHash::None(_) => None,
            },
            path: image.path.clone(),
        };
        (image.id, member)
    });
    all.collect()
}
