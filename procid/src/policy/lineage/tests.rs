use procid_common::policy::InodeKey;
use zerocopy::FromZeros as _;

use super::*;
use crate::policy::Inode;

const fn id(tgid: u32, self_exec_id: u64) -> ImageId {
    ImageId {
        start_boottime: tgid as u64 * 100,
        self_exec_id,
        tgid,
        reserved: 0,
    }
}

const INIT: ImageId = id(1, 1);
/// Rule 0 asks for an ancestor, rule 1 for a parent: the file of this inode.
const INODE: u64 = 77;
const BOTH: u64 = 0b11;

fn tables(named: Named) -> Tables {
    let mut uses = Uses::NONE;
    insert(&mut uses.ancestor, 0);
    insert(&mut uses.parent, 1);
    let key = InodeKey {
        slot: 0,
        dev: 5,
        ino: INODE,
    };
    Tables {
        head: procid_common::policy::Head::new_zeroed(),
        facts: Vec::new(),
        names: Vec::new(),
        hashes: Vec::new(),
        inodes: vec![(key, uses)],
        named,
        epochs: Vec::new(),
    }
}

fn member(before: Before, ino: u64, path: &str) -> Member {
    Member {
        found: before == Before::Older,
        before,
        exe: Some(FileState {
            ino,
            dev: 5,
            ..FileState::default()
        }),
        sha256: Some([0; 32]),
        path: Some(path.as_bytes().into()),
    }
}

/// The first words of what the images before one satisfy: ancestor, perhaps
/// ancestor, parent, perhaps parent.
fn before(
    tables: &Tables,
    family: &Family,
    kept: &HashMap<ImageId, Lineage>,
    of: ImageId,
) -> [u64; 4] {
    let live = HashMap::new();
    let lineage = Lineages::new(tables, family, &live, kept).of(&of);
    [
        lineage.ancestor[0],
        lineage.maybe_ancestor[0],
        lineage.parent[0],
        lineage.maybe_parent[0],
    ]
}

fn family() -> Family {
    let wanted = member(Before::Forker(INIT), INODE, "/wanted");
    let other = |forker| member(Before::Forker(forker), 1, "/other");
    Family::from([
        (INIT, member(Before::Nothing, 1, "/init")),
        (id(10, 2), wanted),
        (id(11, 3), other(id(10, 2))),
        (id(12, 4), other(id(11, 3))),
        // Was the wanted file, then another.
        (id(20, 2), member(Before::Forker(INIT), INODE, "/wanted")),
        (id(20, 3), other(INIT)),
        (id(30, 2), member(Before::Older, 1, "/other")),
        (id(31, 3), other(id(99, 2))),
    ])
}

#[test]
fn ancestors_are_told_at_any_depth_and_parents_at_one() {
    let (tables, family, none) = (tables(Named::default()), family(), HashMap::new());
    let of = |of| before(&tables, &family, &none, of);
    assert_eq!(of(INIT), [0; 4]);
    assert_eq!(of(id(10, 2)), [0; 4], "nobody is before itself");
    assert_eq!(of(id(11, 3)), [1, 1, 2, 2]);
    assert_eq!(of(id(12, 4)), [1, 1, 0, 0]);
    assert_eq!(of(id(20, 3)), [1, 1, 0, 0], "an earlier image of its own");
}

#[test]
fn what_is_older_than_the_agent_is_none_and_what_was_lost_perhaps_any() {
    let (tables, mut family, none) = (tables(Named::default()), family(), HashMap::new());
    assert_eq!(before(&tables, &family, &none, id(30, 2)), [0; 4]);
    let [ancestor, perhaps, parent, perhaps_parent] = before(&tables, &family, &none, id(31, 3));
    assert_eq!((ancestor, parent), (0, 0));
    assert_eq!((perhaps & BOTH, perhaps_parent & BOTH), (BOTH, BOTH));
    // An earlier image of its own that was seen and is forgotten.
    family.remove(&id(20, 2));
    assert_eq!(before(&tables, &family, &none, id(20, 3))[1] & BOTH, BOTH);
    // Another that was not seen.
    family.get_mut(&id(20, 3)).unwrap().found = true;
    assert_eq!(before(&tables, &family, &none, id(20, 3)), [0; 4]);
}

#[test]
fn what_an_earlier_agent_kept_stands() {
    let (tables, family) = (tables(Named::default()), family());
    let mut kept = Lineage::new_zeroed();
    kept.ancestor[0] = 1;
    kept.maybe_ancestor[0] = 1;
    let kept = HashMap::from([(id(30, 2), kept)]);
    assert_eq!(before(&tables, &family, &kept, id(30, 2)), [1, 1, 0, 0]);
}

#[test]
fn a_name_of_what_has_ended_is_perhaps_its_own() {
    let asks = |files| Named(vec![(0, false, files), (1, true, files_below())]);
    let named = tables(asks(Files::Exact("/wanted".into())));
    let mut family = family();
    for member in family.values_mut() {
        if let Some(exe) = &mut member.exe {
            exe.ino = 1;
        }
    }
    let none = HashMap::new();
    assert_eq!(before(&named, &family, &none, id(11, 3)), [0, 1, 0, 0]);
    family.get_mut(&id(10, 2)).unwrap().path = Some(b"/dir/a"[..].into());
    assert_eq!(before(&named, &family, &none, id(11, 3)), [0, 0, 0, 2]);
    family.get_mut(&id(10, 2)).unwrap().path = None;
    assert_eq!(before(&named, &family, &none, id(11, 3)), [0, 1, 0, 2]);
}

fn files_below() -> Files {
    Files::Below("/dir".into())
}

#[test]
fn only_names_are_asked_for_here() {
    let mut rule = crate::policy::Rule {
        name: "r".into(),
        action: crate::policy::Action::Deny,
        process: crate::policy::Process::default(),
        destination: crate::policy::Destination::default(),
        source_ports: Vec::new(),
        ingress: false,
        expires: None,
        line: 1,
    };
    let inode = Inode {
        major: 0,
        minor: 5,
        ino: 1,
    };
    rule.process.ancestors = vec![Matcher::Inode(inode), Matcher::Executable(files_below())];
    let mut policy = Policy {
        mode: crate::policy::Mode::Enforce,
        default: crate::policy::Verdict::Allow,
        unknown_hash: crate::policy::Verdict::Allow,
        loopback_allow: false,
        established_keep: false,
        on_overflow: crate::policy::Verdict::Allow,
        protect: false,
        rules: vec![rule],
        sha256: [0; 32],
    };
    assert_eq!(Named::of(&policy).0, [(0, false, files_below())]);
    policy.rules.clear();
    assert!(Named::of(&policy).0.is_empty());
}
