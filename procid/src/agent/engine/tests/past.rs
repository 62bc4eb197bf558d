//! What history was told, read back.

use std::path::Path;

use super::{
    any::event,
    nat::{look_up, open},
    *,
};
use crate::{
    agent::recall::{image, recall},
    conntrack::{Answer, Translation},
    flow::End,
    history::{
        Fact,
        file::FILE,
        fixtures::{Kept, reader},
    },
};

/// The facts that there are to tell.
pub(super) fn facts(engine: &mut Engine) -> Vec<Fact> {
    std::iter::from_fn(|| engine.next_fact()).collect()
}

/// What memory answers, by what a record is, but for chains, which history does
/// not follow.
pub(super) fn remembered(engine: &Engine, query: &Query) -> Vec<Value> {
    let mut answer = engine.who(query);
    answer.pop();
    for record in &mut answer {
        let procid = record.procid.as_mut().unwrap();
        procid.chain = None;
        procid.unknown.remove("procid.chain");
    }
    sorted(answer.iter().map(checked).collect())
}

/// What history answers, but for the reason why what is open has no end.
pub(super) fn recalled(directory: &Path, query: &Query) -> Vec<Value> {
    let reader = reader(directory);
    let runs = reader.runs().unwrap();
    let answer = recall(&reader, query, &runs, |_, _| false).unwrap();
    let records = answer.found.iter().map(|one| {
        let mut record = checked(&one.record);
        if let Some(unknown) = record.pointer_mut("/procid/unknown") {
            let unknown = unknown.as_object_mut().unwrap();
            let reason = unknown.get("event.end").and_then(Value::as_str);
            if reason.is_some_and(|reason| reason.starts_with("it was open when")) {
                unknown.remove("event.end");
            }
            if unknown.is_empty() {
                record["procid"].as_object_mut().unwrap().remove("unknown");
            }
        }
        record
    });
    sorted(records.collect())
}

fn sorted(mut records: Vec<Value>) -> Vec<Value> {
    records.sort_by_key(|record| {
        let at = |field: &str| {
            record
                .pointer(field)
                .cloned()
                .unwrap_or_default()
                .to_string()
        };
        (
            at("/@timestamp"),
            at("/procid/flow_id"),
            at("/process/entity_id"),
            at("/procid/role"),
        )
    });
    records
}

/// The records that only one of the two has.
fn difference(recalled: &[Value], remembered: &[Value]) -> Option<String> {
    let only = |these: &[Value], those: &[Value]| -> Vec<String> {
        let only = these.iter().filter(|record| !those.contains(record));
        only.map(Value::to_string).collect()
    };
    let differ = recalled != remembered;
    differ.then(|| {
        format!(
            "history alone: {:#?}; memory alone: {:#?}",
            only(recalled, remembered),
            only(remembered, recalled)
        )
    })
}

/// Any question about what [`event`] makes.
fn query() -> impl Strategy<Value = Query> {
    let end = prop_oneof![
        Just(":443"),
        Just(":50000"),
        Just("10.0.0.7"),
        Just("10.0.0.7:443"),
        Just("10.0.0.0/24"),
        Just("10.0.0.5"),
        Just("0.0.0.0/0"),
        Just("::/0"),
        Just("*"),
    ]
    .prop_map(|text| text.parse::<End>().unwrap());
    let end = || prop::option::weighted(0.3, end.clone());
    let time = || prop::option::weighted(0.2, 0..2000 * MS);
    let real =
        |ns: Option<u64>| ns.map(|ns| i64::try_from(NOW + ns).unwrap() + 1_700_000_000_000_000_000);
    let words = |words: &'static [&'static str]| {
        prop::option::weighted(0.2, prop::sample::select(words).prop_map(str::to_owned))
    };
    (
        (end(), end(), end()),
        (time(), time(), time()),
        prop::option::weighted(0.2, 0..13_u32),
        prop::option::weighted(0.2, prop::sample::select(vec![1000_u32, 1001])),
        (
            words(&["/usr/bin/cu\\x1brl", "cu\\x1brl", "curl"]),
            words(&["ab", "abab", "a", "ff"]),
            words(&["allow", "deny"]),
            words(&["c0ffee", "01"]),
            words(&["one.test", "TEST", "wo.test", "none.test"]),
        ),
    )
        .prop_map(move |(ends, times, pid, user, words)| Query {
            either: ends.0,
            source: ends.1,
            destination: ends.2,
            since: real(times.0),
            until: real(times.1),
            at: real(times.2),
            pid,
            user,
            exe: words.0,
            sha256: words.1,
            verdict: words.2,
            container: words.3,
            domain: words.4,
            ..Query::default()
        })
}

/// Learnt with the act's record, after it, and of sockets of other namespaces.
#[test]
fn translated_ends_are_kept_and_found_by() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = engine_with_curl();
    let mut kept = Kept::begin(directory.path(), &engine.run());
    let nat = |port: u16| {
        Answer::Found(Translation {
            local: Some(([192, 0, 2, 1].into(), port)),
            remote: Some(("2001:db8::7".parse().unwrap(), 6443)),
        })
    };
    open(&mut engine, 1, 100);
    look_up(&mut engine, nat(61_001));
    open(&mut engine, 2, 200);
    look_up(&mut engine, nat(61_002));
    open(&mut engine, 3, 100);
    let late = engine.untranslated();
    open(&mut engine, 4, 100);
    look_up(&mut engine, Answer::Found(Translation::default()));
    for (cookie, netns) in [(5, 201), (6, 202)] {
        let mut event = attempt(cookie, 1, NOW + cookie);
        (event.destination, event.netns) = (ipv4(9), netns);
        engine.event(Event::Attempt(event));
        engine.event(Event::Outcome(outcome(cookie, 1, NOW + cookie, 0)));
        look_up(&mut engine, nat(61_005));
    }
    records(&mut engine);
    kept.write(facts(&mut engine), NOW + 50);
    engine.translated(&late[0], nat(61_003));
    kept.write(facts(&mut engine), NOW + 60);
    let all = remembered(&engine, &Query::default());
    let recalled = |query: &Query| recalled(directory.path(), query);
    assert_eq!(difference(&recalled(&Query::default()), &all), None);
    for (question, count) in [
        (&["192.0.2.1:61001"][..], 1),
        (&[":61002"], 1),
        (&["192.0.2.1:61003"], 1),
        (&["192.0.2.0/24"], 3),
        (&["[2001:db8::7]:6443"], 3),
        (&["2001:db8::/32"], 3),
        (&["192.0.2.1:61001", "[2001:db8::7]:6443"], 1),
        (&["192.0.2.1:61001", "10.0.0.7:443"], 1),
        (&["[2001:db8::7]:6443", "192.0.2.1"], 0),
        (&[":61005"], 0),
        (&["10.0.0.5:50000"], 6),
    ] {
        let words: Vec<String> = question.iter().map(|word| (*word).to_owned()).collect();
        let query = Query::from_words(&words).unwrap();
        let found = recalled(&query);
        assert_eq!(found.len(), count, "{question:?}");
        assert_eq!(difference(&found, &remembered(&engine, &query)), None);
    }
    let database = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    let text: String = database
        .query_row(
            "SELECT group_concat(source_nat || ' ' || source_nat_port || ' ' || destination_nat \
             || ' ' || destination_nat_port || ' ' || nat_grade, ', ') FROM connections",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let to = "2001:0db8:0000:0000:0000:0000:0000:0007 6443";
    assert_eq!(
        text,
        format!(
            "192.0.2.1 61001 {to} exact, 192.0.2.1 61002 {to} inferred, \
             192.0.2.1 61003 {to} exact"
        )
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever was seen, and whenever it was written: history gives the records
    /// that memory gives, to any question.
    #[test]
    fn history_answers_what_memory_does(
        steps in prop::collection::vec((event(), 0..5_u8, 0..300 * MS), 0..60),
        queries in prop::collection::vec(query(), 12),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut engine = engine();
        let mut kept = Kept::begin(directory.path(), &engine.run());
        let mut now_ns = NOW;
        for (event, then, after) in steps {
            engine.event(event);
            match then {
                0 => hash_all(&mut engine, HASH),
                1 => hash_all(&mut engine, FileHash::None(Missing::Gone)),
                2 => {
                    now_ns += after;
                    engine.tick(now_ns);
                    let row = close(2, 1, now_ns);
                    engine.counts([Event::CountsRow(row)], now_ns);
                }
                3 => kept.write(facts(&mut engine), now_ns),
                _ => {}
            }
            records(&mut engine);
        }
        engine.finish([]);
        engine.tick(now_ns + HOLD_NS);
        records(&mut engine);
        kept.write(facts(&mut engine), now_ns + HOLD_NS);

        let everything = Query::default();
        let known = remembered(&engine, &everything);
        // Of an act that is denied again and again, memory keeps the first.
        let recalled = |query: &Query| -> Vec<Value> {
            let mut found = recalled(directory.path(), query);
            found.retain(|record| record["procid"]["verdict"] != "deny" || known.contains(record));
            found
        };
        prop_assert_eq!(difference(&recalled(&everything), &known), None);
        let reader = reader(directory.path());
        for record in engine.processes().iter().filter(|it| it.process.is_some()) {
            let entity = record.process.as_ref().unwrap().entity_id.clone().unwrap();
            let past = image(&reader, entity.parse().unwrap()).unwrap();
            let [past, present] = [past, engine.process(&entity)].map(|it| it.map(|it| checked(&it)));
            let differs = difference(past.as_slice(), present.as_slice());
            prop_assert_eq!(differs, None, "{}", entity);
        }
        for query in queries {
            // Beyond its last batch, history knows of nothing that is open.
            let last = i64::try_from(now_ns).unwrap() + 1_700_000_000_000_000_000;
            if [query.since, query.at].iter().flatten().any(|at| *at > last) {
                continue;
            }
            let found = recalled(&query);
            let differs = difference(&found, &remembered(&engine, &query));
            prop_assert_eq!(differs, None, "{:?}", query);
        }
    }
}
