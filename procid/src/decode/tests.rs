use procid_common::{
    image::{Directory, FileState, ImageId, ImageRecord, flags},
    process::{Actor, COMM_LEN},
};
use proptest::prelude::*;
use rstest::rstest;
use zerocopy::IntoBytes;

use super::*;

/// The kind and size of every event, and how [`Event`] calls it.
const EVENTS: [(u32, usize, &str); 10] = [
    (kind::FORK, size_of::<Fork>(), "Fork"),
    (kind::EXEC, size_of::<Exec>(), "Exec"),
    (kind::TASK_ROW, size_of::<Exec>(), "TaskRow"),
    (kind::EXIT, size_of::<Exit>(), "Exit"),
    (kind::ATTEMPT, size_of::<Attempt>(), "Attempt"),
    (kind::OUTCOME, size_of::<Outcome>(), "Outcome"),
    (kind::CLOSE, size_of::<Close>(), "Close"),
    (kind::SOCKET_ROW, size_of::<SocketRow>(), "SocketRow"),
    (kind::FILE_ROW, size_of::<FileRow>(), "FileRow"),
    (kind::ANSWER, size_of::<Answer>(), "Answer"),
];

fn header(kind: u32, len: usize) -> Header {
    Header {
        kind,
        len: u32::try_from(len).unwrap(),
        boot_ns: 42,
    }
}

/// An event of `size` bytes, all zero behind its header.
fn zeroed(kind: u32, size: usize) -> Vec<u8> {
    let mut bytes = header(kind, size).as_bytes().to_vec();
    bytes.resize(size, 0);
    bytes
}

/// The variable part of an exec event, as the kernel side writes it.
fn path_bytes(components: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in components.iter().rev() {
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.extend(name);
    }
    bytes
}

fn arg_bytes(args: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for arg in args {
        bytes.extend(arg);
        bytes.push(0);
    }
    bytes
}

fn exec_bytes(image_flags: u32, path: &[u8], args: &[u8]) -> Vec<u8> {
    let exec = Exec {
        header: header(kind::EXEC, size_of::<Exec>() + path.len() + args.len()),
        image: ImageRecord {
            id: ImageId {
                start_boottime: 1,
                self_exec_id: 2,
                tgid: 3,
                reserved: 0,
            },
            parent: ImageId::UNKNOWN,
            previous: ImageId::UNKNOWN,
            exe: FileState {
                ino: 4,
                ..FileState::default()
            },
            fs_magic: 0xef53,
            flags: image_flags,
            mntns: 0,
            reserved: 0,
        },
        actor: Actor {
            creds: procid_common::image::Credentials::default(),
            tid: 3,
            vpid: 3,
            cgroup: 1,
            netns: 1,
            mntns: 1,
            comm: [0; COMM_LEN],
        },
        sha256: [0; 32],
        hashed: 0,
        path_len: u32::try_from(path.len()).unwrap(),
        args_len: u32::try_from(args.len()).unwrap(),
        script_len: 0,
        root: Directory::default(),
        cwd: Directory::default(),
        script: FileState::default(),
        script_fs_magic: 0,
        script_flags: 0,
    };
    [exec.as_bytes(), path, args].concat()
}

fn decode_exec(bytes: &[u8]) -> Result<ExecFacts, DecodeError> {
    match decode(bytes)? {
        Event::Exec(facts) => Ok(facts),
        other => panic!("decoded as {other:?}"),
    }
}

#[test]
fn each_kind_is_decoded_as_itself() {
    for (kind, size, name) in EVENTS {
        let event = decode(&zeroed(kind, size)).unwrap();
        assert!(format!("{event:?}").starts_with(&format!("{name}(")));
    }
}

#[test]
fn an_event_cut_short_is_refused() {
    for (kind, size, _) in EVENTS {
        let short = zeroed(kind, size - 1);
        assert_eq!(
            decode(&short).unwrap_err(),
            DecodeError::Short {
                have: size - 1,
                want: size
            }
        );
    }
    let no_header = [0; size_of::<Header>() - 1];
    assert!(matches!(decode(&no_header), Err(DecodeError::Short { .. })));
}

#[test]
fn a_kind_or_length_that_does_not_fit_is_refused() {
    assert_eq!(
        decode(&zeroed(0x999, 64)).unwrap_err(),
        DecodeError::Kind(0x999)
    );
    let mut longer = zeroed(kind::EXIT, size_of::<Exit>());
    longer.push(0);
    let want = u32::try_from(size_of::<Exit>()).unwrap();
    assert_eq!(
        decode(&longer).unwrap_err(),
        DecodeError::Length {
            header: want,
            have: size_of::<Exit>() + 1
        }
    );
}

#[test]
fn an_exec_event_is_cut_into_path_and_arguments() {
    let path = path_bytes(&[b"usr".to_vec(), b"bin".to_vec(), b"curl".to_vec()]);
    let facts = decode_exec(&exec_bytes(0, &path, b"curl\0-s\0\0")).unwrap();
    assert_eq!(facts.path.as_deref(), Some(&b"/usr/bin/curl"[..]));
    let args = [b"curl".to_vec(), b"-s".to_vec(), Vec::new()];
    assert_eq!(facts.args.as_deref(), Some(&args[..]));
    assert_eq!(facts.event.image.exe.ino, 4);
}

#[rstest]
#[case(b"", &[])]
#[case(b"\0", &[""])]
#[case(b"a\0", &["a"])]
#[case(b"a\0b", &["a", "b"])] // the last argument was cut
fn argument_edges(#[case] bytes: &[u8], #[case] expected: &[&str]) {
    let facts = decode_exec(&exec_bytes(0, b"", bytes)).unwrap();
    let expected: Vec<_> = expected.iter().map(|arg| arg.as_bytes().to_vec()).collect();
    assert_eq!(facts.args, Some(expected));
    assert_eq!(facts.path, None);
}

#[rstest]
#[case(flags::NO_EXE)]
#[case(flags::PATH_TRUNCATED)]
#[case(flags::PATH_UNREACHABLE)]
fn a_path_that_is_not_whole_is_not_given(#[case] flag: u32) {
    let path = path_bytes(&[b"curl".to_vec()]);
    let facts = decode_exec(&exec_bytes(flag, &path, b"curl\0")).unwrap();
    assert_eq!(facts.path, None);
    assert!(facts.args.is_some());
}

#[test]
fn arguments_that_were_not_read_are_not_given() {
    let facts = decode_exec(&exec_bytes(flags::ARGS_UNREADABLE, b"", b"")).unwrap();
    assert_eq!(facts.args, None);
}

#[test]
fn inner_lengths_that_overrun_are_refused() {
    // A component of 5 bytes in a path of 3.
    let component = exec_bytes(0, b"\x05ab", b"");
    assert_eq!(decode_exec(&component).unwrap_err(), DecodeError::Overrun);

    let mut facts = exec_bytes(0, b"\x02ab", b"ab\0");
    let path_len = std::mem::offset_of!(Exec, path_len);
    facts[path_len..path_len + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert_eq!(decode_exec(&facts).unwrap_err(), DecodeError::Overrun);

    let mut facts = exec_bytes(0, b"\x02ab", b"ab\0");
    let args_len = std::mem::offset_of!(Exec, args_len);
    facts[args_len..args_len + 4].copy_from_slice(&4_u32.to_ne_bytes());
    assert_eq!(decode_exec(&facts).unwrap_err(), DecodeError::Overrun);
}

/// Bytes that are not NUL.
fn text(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1_u8..=255, len)
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }

    /// The header is right, so that what lies behind it is reached.
    #[test]
    fn random_events_never_panic(
        at in 0..EVENTS.len(),
        body in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let size = size_of::<Header>() + body.len();
        let bytes = [header(EVENTS[at].0, size).as_bytes(), &body].concat();
        let _ = decode(&bytes);
    }

    #[test]
    fn random_inner_lengths_never_panic(
        path_len in 0_u32..20,
        args_len in 0_u32..20,
        tail in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let mut bytes = exec_bytes(0, &tail, b"");
        let at = std::mem::offset_of!(Exec, path_len);
        bytes[at..at + 4].copy_from_slice(&path_len.to_ne_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&args_len.to_ne_bytes());
        let fits = (path_len + args_len) as usize <= tail.len();
        let decoded = decode(&bytes);
        prop_assert!(fits || decoded.is_err());
    }

    #[test]
    fn an_exec_event_survives_the_wire(
        components in prop::collection::vec(text(1..64), 1..40),
        args in prop::collection::vec(text(0..40), 0..20),
    ) {
        let bytes = exec_bytes(0, &path_bytes(&components), &arg_bytes(&args));
        let facts = decode_exec(&bytes).unwrap();
        let path = components.iter().flat_map(|name| [b"/", &name[..]].concat()).collect();
        prop_assert_eq!(facts.path, Some(path));
        prop_assert_eq!(facts.args, Some(args));
        prop_assert_eq!(facts.event.as_bytes(), &bytes[..size_of::<Exec>()]);
    }

    #[test]
    fn a_fixed_event_survives_the_wire(body in prop::collection::vec(any::<u8>(), size_of::<Attempt>() - size_of::<Header>())) {
        let bytes = [header(kind::ATTEMPT, size_of::<Attempt>()).as_bytes(), &body].concat();
        let Event::Attempt(attempt) = decode(&bytes).unwrap() else {
            return Err(TestCaseError::fail("not an attempt"));
        };
        prop_assert_eq!(attempt.as_bytes(), &bytes[..]);
    }
}

#[test]
fn a_script_comes_after_the_arguments() {
    let mut bytes = exec_bytes(0, b"\x02sh", b"sh\0x\0");
    let mut exec = Exec::read_from_prefix(&bytes).unwrap().0;
    exec.script_len = 3;
    exec.header.len += 3;
    bytes[..size_of::<Exec>()].copy_from_slice(exec.as_bytes());
    bytes.extend(b"./x");
    let facts = decode_exec(&bytes).unwrap();
    assert_eq!(facts.script.as_deref(), Some(b"./x".as_slice()));
    assert_eq!(facts.args.unwrap(), [b"sh".to_vec(), b"x".to_vec()]);
    bytes.pop();
    exec.header.len -= 1;
    bytes[..size_of::<Exec>()].copy_from_slice(exec.as_bytes());
    assert_eq!(decode_exec(&bytes).unwrap_err(), DecodeError::Overrun);
}
