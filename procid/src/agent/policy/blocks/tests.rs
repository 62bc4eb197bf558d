//! Requests, rules, and what is kept of them.

use proptest::prelude::*;

use super::*;
use crate::identity::hash::settle::Offset;

const NOW: Now = Now {
    boot_ns: 1_000,
    clock: Offset(1_700_000_000_000_000_000),
};

fn request() -> BlockRequest {
    BlockRequest {
        exe: Some("/usr/bin/nc".to_owned()),
        to: Some("10.1.2.3/8".to_owned()),
        for_seconds: 60,
        reason: "exfiltration".to_owned(),
        ..BlockRequest::default()
    }
}

fn refused(request: &BlockRequest) -> String {
    let image = |entity: &str| (entity == "known").then(ImageFile::default);
    Block::new(request, image, NOW).unwrap_err().to_string()
}

#[test]
fn a_request_becomes_a_deny_rule_that_expires() {
    let mut blocks = Blocks::default();
    let name = blocks.add(Block::new(&request(), |_| None, NOW).unwrap());
    assert_eq!(&*name, "block-1");
    let rule = blocks.iter().next().unwrap().rule(NOW);
    assert_eq!(rule.action, Action::Deny);
    assert_eq!(&*rule.name, "block-1");
    assert_eq!(
        rule.process.executables,
        [Files::Exact("/usr/bin/nc".into())]
    );
    let networks: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(rule.destination.networks, networks);
    assert_eq!(
        rule.expires,
        Some(1_700_000_000_000_000_000 + 1_000 + 60_000_000_000)
    );
    // The clock is set back: it still lasts a minute.
    let set_back = Now {
        clock: Offset(0),
        ..NOW
    };
    let rule = blocks.iter().next().unwrap().rule(set_back);
    assert_eq!(rule.expires, Some(60_000_001_000));
    assert!(blocks.expire(60_000_000_999).is_empty());
    assert_eq!(blocks.expire(60_000_001_000).len(), 1);
    let again = blocks.add(Block::new(&request(), |_| None, NOW).unwrap());
    assert_eq!(&*again, "block-2");
}

#[test]
fn an_image_is_blocked_by_its_file() {
    let request = BlockRequest {
        exe: None,
        entity: Some("known".to_owned()),
        ..request()
    };
    let inode = Inode {
        major: 254,
        minor: 1,
        ino: 77,
    };
    let with = |image| Block::new(&request, |_| Some(image), NOW);
    let block = with(ImageFile {
        inode: Some(inode),
        sha256: Some([7; 32]),
    })
    .unwrap();
    assert_eq!(block.rule(NOW).process.inodes, [inode]);
    assert!(block.warnings()[0].contains("not known alone"), "{block:?}");
    let block = with(ImageFile {
        inode: None,
        sha256: Some([7; 32]),
    })
    .unwrap();
    assert_eq!(block.rule(NOW).process.sha256, [[7; 32]]);
    assert!(refused(&request).contains("neither the file nor the hash"));
}

#[test]
fn what_cannot_be_blocked_is_refused_in_a_sentence() {
    let with = |change: fn(&mut BlockRequest)| {
        let mut request = request();
        change(&mut request);
        refused(&request)
    };
    for (sentence, remedy) in [
        (with(|r| r.exe = None), "exactly one"),
        (with(|r| r.entity = Some("known".into())), "exactly one"),
        (with(|r| r.exe = Some("nc".into())), "absolute path"),
        (with(|r| r.exe = Some("/usr/../nc".into())), "absolute path"),
        (with(|r| r.exe = Some("/usr/*/nc".into())), "absolute path"),
        (with(|r| r.exe = Some("/".into())), "absolute path"),
        (with(|r| r.to = Some("example.com".into())), "a CIDR"),
        (with(|r| r.for_seconds = 0), "a second"),
        (with(|r| r.for_seconds = u64::MAX), "365 days"),
        (with(|r| r.reason = " \n".into()), "give 1 to"),
        (
            with(|r| {
                r.exe = None;
                r.sha256 = Some("ab".into());
            }),
            "64 hexadecimal digits",
        ),
        (
            with(|r| {
                r.exe = None;
                r.entity = Some("stranger".into());
            }),
            "is known",
        ),
    ] {
        assert!(sentence.contains(remedy), "{sentence}");
    }
}

#[test]
fn a_mapped_network_is_ipv4() {
    let text = |of: &str| network(of).unwrap().to_string();
    assert_eq!(text("::ffff:10.0.0.1"), "10.0.0.1/32");
    assert_eq!(text("::ffff:10.0.0.1/104"), "10.0.0.0/8");
    assert_eq!(text("::/0"), "::/0");
    assert_eq!(text("fd00::3"), "fd00::3/128");
}

proptest! {
    #[test]
    fn what_is_kept_comes_back(
        target in prop_oneof![
            any::<[u8; 32]>().prop_map(Target::Sha256),
            "(/[a-z. ]{0,3}[a-z]){1,3}"
                .prop_map(|path| Target::Executable(Files::Exact(path.into()))),
            "(/[a-z. ]{0,3}[a-z]){0,3}".prop_map(|path| {
                let path = if path.is_empty() { "/" } else { path.as_str() };
                Target::Executable(Files::Below(path.into()))
            }),
            any::<(u32, u32, u64)>().prop_map(|(major, minor, ino)| {
                Target::Inode(Inode { major, minor, ino })
            }),
        ],
        to in prop::option::of(any::<IpAddr>()),
        reason in "\\PC{1,20}",
        for_ns in 0..1_u64 << 60,
    ) {
        let mut blocks = Blocks::default();
        blocks.add(Block {
            name: "".into(),
            target,
            to: to.map(IpNet::from),
            until_ns: NOW.boot_ns + for_ns,
            reason,
            entity: None,
        });
        let json = blocks.to_json(NOW).unwrap();
        prop_assert_eq!(Blocks::of_json(&json, NOW).unwrap(), blocks);
    }
}
