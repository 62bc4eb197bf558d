//! Changes of the policy, as records tell them.

use super::*;
use crate::{
    agent::{
        policy::{ask::Caller, blocks::ImageFile},
        render::PolicyNews,
    },
    policy::Inode,
    records::line::{Style, line},
};

fn news(caller: Caller, image: Option<ImageId>) -> PolicyNews {
    PolicyNews {
        change: "apply",
        caller,
        image,
        failure: None,
        sha256: Some("ab".repeat(32)),
        generation: 3,
        rule: None,
        reason: None,
        confirm_by: Some("2026-11-22T15:04:06.326456789Z".to_owned()),
    }
}

/// The only record of a change, which is as the schema asks.
fn told(engine: &mut Engine, news: PolicyNews) -> (Value, String) {
    engine.policy(news);
    let record = engine.next_record().unwrap();
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(schema::check(&json), [""; 0], "{json:#}");
    (json, line(&record, Style::default()))
}

#[test]
fn a_change_names_the_process_that_asked() {
    let mut engine = engine();
    let caller = Caller::Peer {
        pid: Some(9),
        uid: 0,
    };
    engine.event(Event::Exec(exec(image(9), NOW)));
    hash_all(&mut engine, HASH);
    while engine.next_record().is_some() {}
    let id = engine.image_of(caller);
    assert_eq!(id, Some(image(9)));
    let (json, text) = told(&mut engine, news(caller, id));
    assert_eq!(json["event"]["action"], "policy");
    assert_eq!(json["event"]["outcome"], "success");
    assert_eq!(json["process"]["pid"], 9);
    assert_eq!(json["process"]["user"]["id"], "0");
    assert_eq!(json["process"]["hash"]["sha256"], "ab".repeat(32));
    assert_eq!(json["rule"]["version"], "ab".repeat(32));
    assert_eq!(json["procid"]["generation"], 3);
    assert_eq!(json["procid"]["policy"]["change"], "apply");
    assert!(
        text.contains("policy   apply: generation 3 of abab"),
        "{text}"
    );
    assert_eq!(
        engine.file_of(json["process"]["entity_id"].as_str().unwrap()),
        Some(ImageFile {
            inode: Some(Inode {
                major: 254,
                minor: 1,
                ino: 77,
            }),
            sha256: Some([0xab; 32]),
        })
    );
    assert_eq!(engine.file_of("stranger"), None);

    // It has called exec since: the image is the one that runs now.
    let next = ImageId {
        self_exec_id: image(9).self_exec_id + 1,
        ..image(9)
    };
    let mut facts = exec(next, NOW + MS);
    facts.event.image.previous = image(9);
    engine.event(Event::Exec(facts));
    assert_eq!(engine.image_of(caller), Some(next));
    engine.event(exit(next, NOW + 2 * MS, 0));
    assert_eq!(engine.image_of(caller), None);
}

#[test]
fn who_is_not_known_is_said_to_be() {
    let mut engine = engine();
    for caller in [
        Caller::Peer {
            pid: Some(4),
            uid: 0,
        },
        Caller::Peer { pid: None, uid: 7 },
        Caller::Agent,
        Caller::Signal,
        Caller::Clock,
    ] {
        assert_eq!(engine.image_of(caller), None);
        let (json, _) = told(&mut engine, news(caller, None));
        assert!(json["procid"]["unknown"].is_object(), "{json}");
    }
}

#[test]
fn a_refusal_tells_why() {
    let mut engine = engine();
    let refused = PolicyNews {
        failure: Some("p.toml:1: bad\np.toml:2: bad".to_owned()),
        sha256: None,
        generation: 0,
        ..news(Caller::Signal, None)
    };
    let (json, text) = told(&mut engine, refused);
    assert_eq!(json["event"]["outcome"], "failure");
    assert_eq!(json["event"]["reason"], "p.toml:1: bad\\x0ap.toml:2: bad");
    assert!(json["procid"]["generation"].is_null());
    assert!(text.contains("apply failed: p.toml:1"), "{text}");
    let block = PolicyNews {
        change: "block",
        rule: Some("block-1".to_owned()),
        reason: Some("leak".to_owned()),
        ..news(Caller::Signal, None)
    };
    let (json, text) = told(&mut engine, block);
    assert_eq!(json["rule"]["name"], "block-1");
    assert!(text.contains("block block-1 (leak): generation"), "{text}");
}
