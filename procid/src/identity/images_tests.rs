use procid_common::{
    event::{Header, kind},
    image::{Credentials, Directory, ImageRecord},
    process::{Actor, Exec},
};
use zerocopy::FromZeros;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn id(tgid: u32, exec: u64) -> ImageId {
    ImageId {
        start_boottime: u64::from(tgid) * 10,
        self_exec_id: exec,
        tgid,
        reserved: 0,
    }
}

fn file(ino: u64) -> FileState {
    FileState {
        ino,
        ..FileState::default()
    }
}

fn record(own: ImageId, parent: ImageId, previous: ImageId, ino: u64) -> ImageRecord {
    ImageRecord {
        id: own,
        parent,
        previous,
        exe: file(ino),
        fs_magic: 0xef53,
        flags: 0,
        mntns: 0,
        reserved: 0,
    }
}

fn header(kind: u32, boot_ns: u64) -> Header {
    Header {
        kind,
        len: 0,
        boot_ns,
    }
}

fn actor(uid: u32) -> Actor {
    let mut actor = Actor::new_zeroed();
    actor.creds = Credentials {
        uid,
        ..Credentials::default()
    };
    actor
}

fn fork(own: ImageId, parent: ImageId, at: u64) -> Fork {
    Fork {
        header: header(kind::FORK, at),
        image: record(own, parent, ImageId::UNKNOWN, 1),
        actor: actor(1),
    }
}

fn exec(own: ImageId, parent: ImageId, previous: ImageId, at: u64, path: &[u8]) -> ExecFacts {
    ExecFacts {
        event: Exec {
            header: header(kind::EXEC, at),
            image: record(own, parent, previous, 1),
            actor: actor(2),
            sha256: [0; 32],
            hashed: 0,
            path_len: 0,
            args_len: 0,
            script_len: 0,
            root: Directory::default(),
            cwd: Directory::default(),
            script: FileState::default(),
            script_fs_magic: 0,
            script_flags: 0,
        },
        path: Some(path.to_vec()),
        args: Some(vec![path.to_vec(), b"-x".to_vec()]),
        script: None,
    }
}

fn exit(own: ImageId, at: u64) -> Exit {
    Exit {
        header: header(kind::EXIT, at),
        id: own,
        status: 0,
        reserved: 0,
    }
}

fn images() -> Images {
    Images::new([9; 16])
}

fn entity(id: ImageId) -> EntityId {
    EntityId::new(&[9; 16], &id)
}

const KNOWN: FileHash = FileHash::Known {
    sha256: [5; 32],
    grade: Grade::Verified,
};
const PENDING: FileHash = FileHash::None(Missing::Pending);

#[test]
fn a_fork_shares_its_parents_executable() {
    let (parent, child) = (id(1, 1), id(2, 1));
    let mut images = images();
    images.exec(exec(
        parent,
        ImageId::UNKNOWN,
        ImageId::UNKNOWN,
        1,
        b"/bin/a",
    ));
    images.fork(&fork(child, parent, 2));
    let (one, two) = (
        images.get(&parent).expect("known"),
        images.get(&child).expect("known"),
    );
    assert_eq!(two.path.as_deref(), Some(b"/bin/a".as_slice()));
    assert!(Arc::ptr_eq(
        one.path.as_ref().expect("known"),
        two.path.as_ref().expect("known")
    ));
    assert!(Arc::ptr_eq(
        one.args.as_ref().expect("known"),
        two.args.as_ref().expect("known")
    ));
    assert_eq!((two.parent, two.root), (Some(parent), parent));
    assert_ne!(two.flags & flags::FORKED, 0);
    assert_eq!(two.actor.creds.uid, 1);
    assert!(one.request().is_some());
    assert!(two.request().is_none());
}

#[test]
fn a_pending_hash_reaches_all_forks_of_the_exec_and_no_other_exec() {
    let (root, child, grandchild, other) = (id(1, 1), id(2, 1), id(3, 1), id(4, 1));
    let mut images = images();
    images.exec(exec(root, ImageId::UNKNOWN, ImageId::UNKNOWN, 1, b"/bin/a"));
    // Another exec of the same file state: settled or not on its own.
    images.exec(exec(
        other,
        ImageId::UNKNOWN,
        ImageId::UNKNOWN,
        1,
        b"/bin/a",
    ));
    images.fork(&fork(child, root, 2));
    images.fork(&fork(grandchild, child, 3));
    images.exit(&exit(root, 4));
    assert!(!images.set_hash(&root, KNOWN).is_empty());
    for id in [root, child, grandchild] {
        assert_eq!(images.get(&id).expect("known").hash, KNOWN);
    }
    assert_eq!(images.get(&other).expect("known").hash, PENDING);
    assert!(images.set_hash(&root, KNOWN).is_empty(), "nothing changed");
    images.fork(&fork(id(5, 1), grandchild, 5));
    assert_eq!(images.get(&id(5, 1)).expect("known").hash, KNOWN);
}

#[test]
fn a_hash_reaches_the_forks_of_a_root_that_was_forgotten() {
    let (root, child) = (id(1, 1), id(2, 1));
    let mut images = images();
    images.exec(exec(root, ImageId::UNKNOWN, ImageId::UNKNOWN, 1, b"/bin/a"));
    images.fork(&fork(child, root, 2));
    images.exec(exec(id(2, 2), root, child, 3, b"/bin/b"));
    images.hold(&child);
    images.images.remove(&root);
    images.retire(SECOND);
    assert!(!images.set_hash(&root, KNOWN).is_empty());
    assert_eq!(images.get(&child).expect("known").hash, KNOWN);
}

#[test]
fn exec_ends_the_image_it_replaces_and_keeps_the_forker() {
    let (shell, child, tool) = (id(1, 1), id(2, 1), id(2, 2));
    let mut images = images();
    images.exec(exec(
        shell,
        ImageId::UNKNOWN,
        ImageId::UNKNOWN,
        1,
        b"/bin/sh",
    ));
    images.fork(&fork(child, shell, 2));
    images.exec(exec(tool, ImageId::UNKNOWN, child, 3, b"/bin/tool"));
    let image = images.get(&tool).expect("known");
    assert_eq!(image.parent, Some(shell), "from the previous image");
    assert_eq!(image.previous, Some(child));
    assert_eq!(images.get(&child).expect("known").ended_ns, Some(3));
    assert_eq!(images.ancestry(&tool), [entity(shell)]);
}

#[test]
fn a_parent_that_may_be_a_reaper_is_not_named() {
    let mut facts = exec(id(2, 1), id(1, 1), ImageId::UNKNOWN, 1, b"/bin/a");
    facts.event.image.flags = flags::PARENT_UNSURE | flags::SNAPSHOT;
    let mut images = images();
    images.task_row(facts);
    assert_eq!(images.get(&id(2, 1)).expect("known").parent, None);
}

#[test]
fn a_row_replaces_nothing_that_was_seen_live() {
    let own = id(1, 1);
    let mut images = images();
    images.exec(exec(
        own,
        ImageId::UNKNOWN,
        ImageId::UNKNOWN,
        1,
        b"/bin/live",
    ));
    images.task_row(exec(
        own,
        ImageId::UNKNOWN,
        ImageId::UNKNOWN,
        2,
        b"/claimed",
    ));
    let image = images.get(&own).expect("known");
    assert_eq!(image.provenance, Provenance::Live);
    assert_eq!(image.path.as_deref(), Some(b"/bin/live".as_slice()));
}

#[test]
fn a_fork_that_overtook_its_parents_row_gets_the_path() {
    let (parent, child) = (id(1, 1), id(2, 1));
    let mut images = images();
    images.fork(&fork(child, parent, 2));
    assert_eq!(images.get(&child).expect("known").root, child);
    assert!(
        images
            .get(&child)
            .expect("known")
            .request()
            .expect("known")
            .snapshot
    );
    images.task_row(exec(
        parent,
        ImageId::UNKNOWN,
        ImageId::UNKNOWN,
        1,
        b"/bin/a",
    ));
    let image = images.get(&child).expect("known");
    assert_eq!(image.path.as_deref(), Some(b"/bin/a".as_slice()));
}

#[test]
fn a_row_does_not_bring_back_what_has_ended() {
    let own = id(1, 1);
    let mut images = images();
    images.exit(&exit(own, 5));
    images.task_row(exec(own, ImageId::UNKNOWN, ImageId::UNKNOWN, 3, b"/bin/a"));
    assert_eq!(images.get(&own).expect("known").ended_ns, Some(5));
    assert_eq!(images.live().count(), 0);
}

#[test]
fn ancestry_is_bounded_and_names_the_unknown_parent() {
    let mut images = images();
    for pid in 2..200 {
        images.fork(&fork(id(pid, 1), id(pid - 1, 1), u64::from(pid)));
    }
    let ancestry = images.ancestry(&id(199, 1));
    assert_eq!(ancestry.len(), ANCESTRY_MAX);
    assert_eq!(ancestry[0], entity(id(198, 1)));
    assert_eq!(
        images.ancestry(&id(3, 1)),
        [entity(id(2, 1)), entity(id(1, 1))]
    );
    // A parent that names itself ends at the bound.
    images.fork(&fork(id(500, 1), id(500, 1), 1));
    assert_eq!(images.ancestry(&id(500, 1)).len(), ANCESTRY_MAX);
}

#[test]
fn by_entity_finds_it() {
    let mut images = images();
    images.fork(&fork(id(7, 1), id(1, 1), 1));
    let name = entity(id(7, 1)).to_string();
    assert_eq!(images.by_entity(&name).expect("known").id, id(7, 1));
    assert!(images.by_entity("junk").is_none());
}

#[test]
fn ended_images_stay_while_they_are_needed() {
    let mut images = images();
    for pid in [1, 2, 3, 4, 5] {
        images.fork(&fork(id(pid, 1), id(pid - 1, 1), 1));
    }
    for pid in [1, 2, 4, 5] {
        images.exit(&exit(id(pid, 1), 10));
    }
    images.hold(&id(5, 1));
    images.hold(&id(5, 1));
    images.retire(10 + KEEP_ENDED_NS);
    assert_eq!(images.len(), 5, "not old enough");
    images.release(&id(5, 1));
    images.retire(11 + KEEP_ENDED_NS);
    assert_eq!(images.len(), 5, "held, and ancestors of what is held");
    images.release(&id(5, 1));
    images.retire(11 + KEEP_ENDED_NS);
    let mut left: Vec<_> = images.images.keys().map(|id| id.tgid).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 2, 3], "the live one and its ancestors");
    assert_eq!(images.evicted(), 0);
}

#[test]
fn a_chain_of_forks_that_exit_does_not_pile_up() {
    let mut images = images();
    for pid in 2..1000 {
        images.fork(&fork(id(pid, 1), id(pid - 1, 1), 1));
        images.exit(&exit(id(pid - 1, 1), 2));
    }
    images.retire(3 + KEEP_ENDED_NS);
    assert_eq!(images.len(), ANCESTRY_MAX + 1);
}

#[test]
fn a_full_table_forgets_the_ended_first_and_never_the_living() {
    let mut images = Images::with_capacity([9; 16], 80);
    for pid in 1..=40 {
        images.fork(&fork(id(pid, 1), ImageId::UNKNOWN, 1));
    }
    for pid in 100..140 {
        images.fork(&fork(id(pid, 1), ImageId::UNKNOWN, 1));
        images.exit(&exit(id(pid, 1), u64::from(pid)));
    }
    images.fork(&fork(id(200, 1), ImageId::UNKNOWN, 1));
    assert_eq!((images.len(), images.evicted()), (71, 10));
    assert!(images.get(&id(109, 1)).is_none(), "the oldest end");
    assert!(images.get(&id(110, 1)).is_some());
    for pid in 300..400 {
        images.fork(&fork(id(pid, 1), ImageId::UNKNOWN, 1));
    }
    assert_eq!(images.len(), 80);
    assert_eq!(images.live().count(), 80, "only the living are left");
    assert_eq!(images.evicted(), 10 + 30 + 61);
}

#[test]
fn unknown_ids_are_not_taken_in() {
    let mut images = images();
    images.fork(&fork(ImageId::UNKNOWN, id(1, 1), 1));
    assert!(images.is_empty());
}
