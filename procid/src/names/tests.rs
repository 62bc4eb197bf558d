use std::net::{IpAddr, Ipv4Addr};

use procid_common::answer::MESSAGE_MAX;
use proptest::prelude::*;

use super::{
    fixtures::{A, AAAA, CNAME, NETNS, answer, event, record, wire},
    message::Said,
    *,
};
use crate::connections::fixtures::image;

fn read(bytes: &[u8]) -> (Option<Said>, bool) {
    message::read(bytes)
}

fn said(name: &str, addresses: &[&str]) -> Option<Said> {
    Some(Said {
        name: name.to_owned(),
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
    })
}

#[test]
fn the_name_is_that_of_the_question_however_long_the_chain() {
    let chain = [
        // A server may give them in any order.
        record("b.cdn.test", A, &[192, 0, 2, 9]),
        record("A.cdn.test", CNAME, &wire("b.cdn.test")),
        record("www.example.test", CNAME, &wire("a.CDN.test")),
        record("b.cdn.test", A, &[192, 0, 2, 10]),
    ];
    let bytes = answer("WWW.Example.test", A, &chain);
    let expected = said("www.example.test", &["192.0.2.9", "192.0.2.10"]);
    assert_eq!(read(&bytes), (expected, true));
}

#[test]
fn what_was_not_asked_for_is_not_taken() {
    let records = [
        record("bank.test", A, &[192, 0, 2, 1]),
        record("shop.test", A, &[192, 0, 2, 2]),
        record("shop.test", A, &[0, 0, 0, 0]),
    ];
    let bytes = answer("shop.test", A, &records);
    assert_eq!(read(&bytes), (said("shop.test", &["192.0.2.2"]), true));
    // A chain that bites its tail ends.
    let records = [
        record("a.test", CNAME, &wire("b.test")),
        record("b.test", CNAME, &wire("a.test")),
        record("b.test", A, &[192, 0, 2, 3]),
    ];
    let bytes = answer("a.test", A, &records);
    assert_eq!(read(&bytes), (said("a.test", &["192.0.2.3"]), true));
}

#[test]
fn both_families_are_read_and_other_questions_are_not() {
    let v6: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    let bytes = answer("v6.test", AAAA, &[record("v6.test", AAAA, &v6.octets())]);
    assert_eq!(read(&bytes), (said("v6.test", &["2001:db8::7"]), true));
    let bytes = answer("a.test", 16, &[record("a.test", A, &[192, 0, 2, 1])]);
    assert_eq!(read(&bytes), (None, true));
    let mut refused = answer("a.test", A, &[record("a.test", A, &[192, 0, 2, 1])]);
    refused[3] = 0x83;
    assert_eq!(read(&refused), (None, true));
}

#[test]
fn names_are_made_harmless() {
    let bytes = answer(
        "e\x1b[31m vil\n.test",
        A,
        &[record("e\x1b[31m vil\n.test", A, &[192, 0, 2, 1])],
    );
    let (said, _) = read(&bytes);
    assert_eq!(said.unwrap().name, r"e\027[31m\ vil\010.test");
}

#[test]
fn what_ends_early_says_what_it_said_by_then() {
    let records = [
        record("a.test", A, &[192, 0, 2, 1]),
        record("a.test", A, &[192, 0, 2, 2]),
    ];
    let bytes = answer("a.test", A, &records);
    let cut = &bytes[..bytes.len() - 1];
    assert_eq!(read(cut), (said("a.test", &["192.0.2.1"]), false));
    assert_eq!(read(&bytes[..20]), (None, false));
    assert_eq!(read(&[]), (None, false));
}

const SECOND: u64 = 1_000_000_000;

fn told(name: &str, last: u8, by: u32, at_ns: u64) -> Answer {
    fixtures::told(name, Ipv4Addr::new(192, 0, 2, last), by, at_ns)
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn others(domain: &Domain) -> Vec<&str> {
    domain.others.iter().map(|name| &**name).collect()
}

#[test]
fn what_an_image_asked_for_itself_goes_before_what_is_newer() {
    let mut names = Names::default();
    names.learn(&told("one.test", 1, 10, SECOND));
    names.learn(&told("two.test", 1, 11, 2 * SECOND));
    let own = names.of(NETNS, address(1), &image(10), 3 * SECOND).unwrap();
    assert_eq!(
        (&*own.name, own.is_asked_by(&image(10)), own.at_ns),
        ("one.test", true, SECOND)
    );
    assert_eq!(others(&own), ["two.test"]);
    let other = names.of(NETNS, address(1), &image(12), 3 * SECOND).unwrap();
    assert_eq!((&*other.name, other.asked_by), ("two.test", image(11)));
    assert_eq!(others(&other), ["one.test"]);
}

/// Neither from the future, nor too old, nor of another network.
#[test]
fn a_name_that_cannot_be_meant_is_not_given() {
    let mut names = Names::default();
    names.learn(&told("one.test", 1, 10, 5 * SECOND));
    let of = |netns, at_ns| names.of(netns, address(1), &image(10), at_ns);
    assert_eq!(of(NETNS, 5 * SECOND - 1), None);
    assert!(of(NETNS, 5 * SECOND).is_some());
    assert!(of(NETNS, 5 * SECOND + AGE_MAX_NS).is_some());
    assert_eq!(of(NETNS, 5 * SECOND + AGE_MAX_NS + 1), None);
    assert_eq!(of(NETNS + 1, 6 * SECOND), None);
    assert_eq!(names.of(NETNS, address(2), &image(10), 6 * SECOND), None);
}

/// Nobody is taken for the image that is not known.
#[test]
fn who_is_not_known_asked_for_nobody() {
    let mut names = Names::default();
    names.learn(&told("one.test", 1, 0, SECOND));
    let domain = names.of(NETNS, address(1), &ImageId::UNKNOWN, 2 * SECOND);
    assert!(domain.is_some_and(|domain| !domain.is_asked_by(&ImageId::UNKNOWN)));
}

#[test]
fn a_name_is_found_by_itself_and_by_those_above_it() {
    let domain = Domain {
        name: "www.example.test".into(),
        asked_by: ImageId::UNKNOWN,
        at_ns: SECOND,
        others: Box::new(["cdn.other.test".into()]),
    };
    for (asked, is_it) in [
        ("www.example.test", true),
        ("WWW.example.test.", true),
        ("example.test", true),
        ("other.test", true),
        ("test", true),
        ("ample.test", false),
        ("a.www.example.test", false),
        ("", false),
        (".", false),
    ] {
        assert_eq!(domain.is_within(asked), is_it, "{asked}");
    }
}

#[test]
fn what_is_kept_is_bounded() {
    let mut names = Names::with_capacity(NonZero::new(8).unwrap());
    for last in 0..100 {
        names.learn(&told("one.test", last, 10, SECOND));
    }
    assert_eq!(names.fill(), (8, 8));
    for number in 0..20 {
        names.learn(&told(&format!("n{number}.test"), 99, 10, SECOND));
    }
    let domain = names.of(NETNS, address(99), &image(10), SECOND).unwrap();
    assert_eq!(&*domain.name, "n19.test");
    assert_eq!(others(&domain), ["n18.test", "n17.test", "n16.test"]);
    assert_eq!(names.of(NETNS, address(0), &image(10), SECOND), None);
    assert_eq!((names.answers(), names.unreadable()), (120, 0));
}

proptest! {
    /// Whatever the bytes are, they are read to some end, and what they say can be
    /// printed.
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..MESSAGE_MAX), len in any::<u32>()) {
        let mut answer = event(&bytes, 1, SECOND);
        answer.len = len;
        let mut names = Names::default();
        names.learn(&answer);
        prop_assert_eq!(names.answers(), 1);
    }

    /// The same of bytes that begin as an answer does, with a bit changed or cut.
    #[test]
    fn no_answer_does_harm(
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..6),
        change in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut name: Vec<u8> = labels
            .iter()
            .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], &label[..]].concat())
            .collect();
        name.push(0);
        let mut bytes = vec![0, 0, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
        bytes.extend(&name);
        bytes.extend([0, 1, 0, 1]);
        for last in 1..=2 {
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, last]);
        }
        let whole = read(&bytes);
        prop_assert_eq!(whole.0.map(|said| said.addresses), Some(vec![address(1), address(2)]));
        for (at, byte) in change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let (Some(said), _) = read(&bytes) {
            prop_assert!(said.name.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(!said.addresses.is_empty());
        }
    }
}
