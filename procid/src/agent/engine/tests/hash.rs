//! The wait for hashes, and hashes that come late.

use super::*;

#[test]
fn a_record_waits_for_its_hash_and_those_behind_it_wait_too() {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    engine.event(exit(image(99), NOW, 0));
    engine.tick(NOW + HOLD_NS - 1);
    assert_eq!(records(&mut engine).len(), 0);
    assert!(engine.is_waiting());
    hash_all(&mut engine, HASH);
    let told = records(&mut engine);
    assert_eq!(actions(&told), ["exec", "exit"], "and no hash record");
    assert_eq!(told[0]["procid"]["hash"]["grade"], "verified");
}

#[test]
fn a_hash_that_comes_too_late_is_a_record_for_each_image_that_went_without() {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    engine.event(fork(image(11), image(10), NOW));
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    engine.tick(NOW + HOLD_NS);
    let told = records(&mut engine);
    assert_eq!(actions(&told), ["exec", "fork", "connect"]);
    for record in &told {
        assert_eq!(record["procid"]["hash"]["grade"], "none");
        assert_eq!(record["procid"]["hash"]["reason"], "pending");
        assert_eq!(record["process"].get("hash"), None);
    }
    // Another fork, whose record is made after the answer, needs none.
    engine.event(fork(image(12), image(10), NOW));
    hash_all(&mut engine, HASH);
    engine.hash(Answer {
        id: image(10),
        hash: HASH,
    });
    let late = records(&mut engine);
    assert_eq!(actions(&late), ["fork", "hash", "hash"]);
    let pids: Vec<_> = late.iter().map(|r| r["process"]["pid"].clone()).collect();
    assert_eq!(pids, [12, 10, 11]);
    assert_eq!(late[1]["process"]["hash"]["sha256"], "ab".repeat(32));
}

#[test]
fn a_full_hash_queue_answers_nothing_and_makes_no_record() {
    let mut engine = engine();
    engine.event(Event::Exec(exec(image(10), NOW)));
    engine.tick(NOW + HOLD_NS);
    assert_eq!(records(&mut engine).len(), 1);
    hash_all(&mut engine, FileHash::None(Missing::Pending));
    assert_eq!(records(&mut engine).len(), 0);
    engine.hash(Answer {
        id: image(10),
        hash: FileHash::None(Missing::Gone),
    });
    assert_eq!(records(&mut engine)[0]["procid"]["hash"]["reason"], "gone");
}

#[test]
fn a_record_waits_for_its_script_and_one_that_did_not_is_followed_by_word_of_it() {
    let hash = FileHash::Known {
        sha256: [7; 32],
        grade: Grade::Named,
    };
    for (wait_ns, expected) in [
        (0, ["exec"].as_slice()),
        (HOLD_NS, ["exec", "hash"].as_slice()),
    ] {
        let mut engine = engine();
        let mut facts = exec(image(10), NOW);
        facts.script = Some(b"./x\n".to_vec());
        engine.event(Event::Exec(facts));
        let mut requests = Vec::new();
        while let Some(work) = engine.next_work() {
            match work {
                Work::Hash(request) => engine.hash(Answer {
                    id: request.id,
                    hash: HASH,
                }),
                Work::Script(request) => requests.push(request),
                Work::Given(..) | Work::Settled(..) | Work::Hashed(..) | Work::Ended(..) => {}
            }
        }
        assert!(engine.next_record().is_none(), "it waits");
        engine.tick(NOW + wait_ns);
        let mut told = records(&mut engine);
        requests[0]
            .script
            .settle(script::Found { file: None, hash });
        engine.script(&image(10));
        told.extend(records(&mut engine));
        assert_eq!(actions(&told), expected);
        let last = &told[told.len() - 1]["procid"]["script"];
        assert_eq!(last["path"], r"./x\x0a");
        assert_eq!(last["hash"]["sha256"], "07".repeat(32));
        assert_eq!(last["hash"]["grade"], "named");
    }
}

/// Each record of a late hash says what the hash is.
#[test]
fn word_of_a_script_waits_for_the_hash_of_its_interpreter() {
    let mut engine = engine();
    let mut facts = exec(image(10), NOW);
    facts.script = Some(b"./x".to_vec());
    engine.event(Event::Exec(facts));
    engine.tick(NOW + HOLD_NS);
    assert_eq!(actions(&records(&mut engine)), ["exec"]);
    while let Some(work) = engine.next_work() {
        if let Work::Script(request) = work {
            request.script.settle(script::Found {
                file: None,
                hash: HASH,
            });
        }
    }
    engine.script(&image(10));
    engine.tick(NOW + 3 * HOLD_NS);
    assert_eq!(records(&mut engine).len(), 0);
    engine.hash(Answer {
        id: image(10),
        hash: HASH,
    });
    let told = records(&mut engine);
    assert_eq!(actions(&told), ["hash"]);
    for pointer in ["/procid/hash/grade", "/procid/script/hash/grade"] {
        assert_eq!(told[0].pointer(pointer).unwrap(), "verified");
    }
}
