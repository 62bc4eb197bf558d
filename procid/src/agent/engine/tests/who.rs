//! Answers.

use super::*;

#[test]
fn who_answers_oldest_first_and_says_what_it_could_have_missed() {
    let mut engine = engine_with_curl();
    for (cookie, at_ns) in [(9, NOW + 5), (8, NOW + 6), (7, NOW + 4)] {
        let mut event = attempt(cookie, 1, at_ns);
        event.destination = ipv4(u8::try_from(cookie).unwrap());
        engine.event(Event::Attempt(event));
        engine.event(Event::Outcome(outcome(cookie, 1, at_ns, 0)));
    }
    let told = records(&mut engine);
    engine.event(Event::Close(close(9, 1, NOW + 10)));
    engine.tick(NOW + 20);
    let mut answer = engine.who(&Query::default());
    let coverage = checked(&answer.pop().unwrap());
    assert_eq!(coverage["procid"]["coverage"]["provenance"], "live");
    let flows: Vec<_> = answer
        .iter()
        .map(|record| checked(record)["procid"]["flow_id"].clone())
        .collect();
    assert_eq!(flows, ["7.1", "9.1", "8.1"]);
    // The answer is the record that was written, and its end.
    let mut first = checked(&answer[1]);
    let event = first["event"].as_object_mut().unwrap();
    assert_eq!(event.remove("duration"), Some(5.into()));
    event.remove("start");
    event.remove("end");
    for (object, bytes) in [("source", 100), ("destination", 200), ("network", 300)] {
        let object = first[object].as_object_mut().unwrap();
        assert_eq!(object.remove("bytes"), Some(bytes.into()));
    }
    assert_eq!(first, told[0]);
}

#[test]
fn who_matches_by_what_is_known() {
    let mut engine = engine_with_curl();
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    let told = records(&mut engine);
    let found = |query: Query| engine.who(&query).len() - 1;
    let exe = |text: &str| Query {
        exe: Some(text.to_owned()),
        ..Query::default()
    };
    assert_eq!(found(exe("/usr/bin/cu\\x1brl")), 1);
    assert_eq!(found(exe("cu\\x1brl")), 1);
    assert_eq!(found(exe("curl")), 0);
    for (sha256, count) in [("abab", 1), ("ff", 0)] {
        let query = Query {
            sha256: Some(sha256.to_owned()),
            ..Query::default()
        };
        assert_eq!(found(query), count);
    }
    for (user, pid, count) in [(1001, 10, 1), (1000, 10, 0), (1001, 11, 0)] {
        let query = Query {
            user: Some(user),
            pid: Some(pid),
            ..Query::default()
        };
        assert_eq!(found(query), count);
    }
    let id = told[0]["network"]["community_id"].as_str().unwrap();
    let query = Query {
        community_id: Some(id.to_owned()),
        ..Query::default()
    };
    assert_eq!(found(query), 1);
}

#[test]
fn one_answer_is_bounded_and_says_so() {
    let mut engine = engine_with_curl();
    for cookie in 1..=ANSWER_MAX as u64 + 3 {
        engine.event(Event::Attempt(attempt(cookie, 1, NOW + cookie)));
    }
    let answer = engine.who(&Query::default());
    assert_eq!(answer.len(), ANSWER_MAX + 1);
    let coverage = checked(answer.last().unwrap());
    assert_eq!(
        coverage["procid"]["coverage"]["lost"]["over-answer-limit"],
        3
    );
}

#[test]
fn an_image_is_found_by_its_entity_id() {
    let engine = engine_with_curl();
    let entity = engine.images.get(&image(10)).unwrap().entity.to_string();
    let record = engine.process(&entity).unwrap();
    assert_eq!(record.process.unwrap().entity_id.unwrap(), entity);
    assert_eq!(engine.process("nothing"), None);
}

#[test]
fn who_finds_what_was_denied() {
    let mut engine = engine_with_curl();
    for (cookie, verdict) in [(7, verdict::DENY), (8, verdict::AUDIT), (9, verdict::ALLOW)] {
        let mut event = attempt(cookie, 1, NOW);
        event.verdict = verdict;
        event.generation = 3;
        engine.event(Event::Attempt(event));
        engine.event(Event::Outcome(outcome(cookie, 1, NOW, 0)));
    }
    records(&mut engine);
    for (word, flow) in [("deny", "7.1"), ("audit", "8.1"), ("allow", "9.1")] {
        let query = Query {
            verdict: Some(word.to_owned()),
            ..Query::default()
        };
        let answer = engine.who(&query);
        assert_eq!(answer.len(), 2, "{word}");
        let record = checked(&answer[0]);
        assert_eq!(record["procid"]["flow_id"], flow);
        assert_eq!(record["procid"]["verdict"], word);
    }
}

#[test]
fn who_finds_what_was_denied_on_a_connection_that_goes_on() {
    let mut engine = engine_with_curl();
    engine.event(Event::Attempt(attempt(9, 1, NOW)));
    engine.event(Event::Outcome(outcome(9, 1, NOW, 0)));
    let mut other = attempt(9, 1, NOW + 5);
    other.image = image(11);
    other.flags |= flags::SEND;
    other.verdict = verdict::DENY;
    other.generation = 3;
    engine.event(Event::Attempt(other));
    let told = records(&mut engine);
    let denied = Query {
        verdict: Some("deny".to_owned()),
        ..Query::default()
    };
    let answer = engine.who(&denied);
    assert_eq!(answer.len(), 2);
    assert_eq!(checked(&answer[0]), told[1]);
    assert_eq!(told[1]["procid"]["role"], "speaker");
    assert_eq!(told[1]["procid"]["verdict"], "deny");
    assert_eq!(engine.who(&Query::default()).len(), 3);
    // Let through by a later policy, it is a speaker too.
    let mut allowed = attempt(9, 1, NOW + 9);
    allowed.image = image(11);
    engine.event(Event::Use(allowed));
    records(&mut engine);
    assert_eq!(engine.who(&Query::default()).len(), 4);
}

#[test]
fn a_container_is_its_cgroups() {
    let mut engine = engine_with_curl();
    for (cookie, cgroup) in [(7, 4242), (8, 42), (9, 99)] {
        let mut event = attempt(cookie, 1, NOW);
        event.actor.cgroup = cgroup;
        engine.event(Event::Attempt(event));
        engine.event(Event::Outcome(outcome(cookie, 1, NOW, 0)));
    }
    let told = records(&mut engine);
    assert_eq!(told[0]["container"]["id"], CONTAINER);
    assert_eq!(told[0]["container"]["runtime"], "docker");
    let scope = format!("docker-{CONTAINER}.scope");
    assert_eq!(told[0]["procid"]["unit"], scope);
    assert_eq!(told[0]["procid"]["cgroup"]["path"], format!("/{scope}"));
    assert_eq!(told[1]["procid"]["unit"], "x.service");
    assert_eq!(told[1].get("container"), None);
    assert_eq!(told[1]["procid"]["unknown"].get("container.id"), None);
    assert_eq!(told[2].get("container"), None);
    assert!(told[2]["procid"]["unknown"]["container.id"].is_string());
    assert!(told[2]["procid"]["unknown"]["procid.cgroup.path"].is_string());
    let query = Query {
        container: Some(CONTAINER[..4].to_owned()),
        ..Query::default()
    };
    let answer = engine.who(&query);
    assert_eq!(answer.len(), 2);
    assert_eq!(checked(&answer[0])["container"]["id"], CONTAINER);
}

#[test]
fn the_images_that_run_are_listed_with_what_they_hold_open() {
    let mut engine = engine_with_curl();
    for cookie in [7, 8] {
        engine.event(Event::Attempt(attempt(cookie, 1, NOW)));
        engine.event(Event::Outcome(outcome(cookie, 1, NOW, 0)));
    }
    records(&mut engine);
    let sockets = |engine: &Engine| {
        let mut all = engine.processes();
        let coverage = checked(&all.pop().unwrap());
        assert!(coverage["procid"]["coverage"].is_object());
        let of = |record: &Record| record.process.as_ref()?.pid;
        let curl = all.iter().find(|record| of(record) == Some(10));
        curl.map(|record| checked(record)["procid"]["sockets"].clone())
    };
    assert_eq!(sockets(&engine), Some(2.into()));
    engine.event(Event::Close(close(7, 1, NOW + 10)));
    assert_eq!(sockets(&engine), Some(1.into()));
    engine.event(exit(image(10), NOW + 20, 0));
    assert_eq!(sockets(&engine), None);
}
