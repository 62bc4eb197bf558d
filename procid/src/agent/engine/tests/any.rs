//! Any events in any order.

use super::*;
use crate::names::fixtures::told;

/// Any event, of few processes and few sockets, so that they meet.
pub(super) fn event() -> impl Strategy<Value = Event> {
    let id = (8..12_u32, 1..3_u64).prop_map(|(tgid, self_exec_id)| ImageId {
        self_exec_id,
        ..image(tgid)
    });
    let errors = prop_oneof![Just(0), Just(-1), Just(-2), Just(libc::ECONNREFUSED)];
    let some_flags = prop_oneof![
        Just(0),
        Just(flags::KERNEL),
        Just(flags::CREATOR_UNSEEN),
        Just(flags::IO_WORKER),
        Just(flags::SUBFLOW),
    ];
    (
        0..14_u8,
        id,
        1..6_u64,
        1..4_u32,
        errors,
        some_flags,
        0..2000 * MS,
    )
        .prop_map(|(what, id, cookie, flow, error, attempt_flags, after)| {
            let at_ns = NOW + after;
            match what {
                0 => fork(id, image(8), at_ns),
                1 => {
                    let mut facts = exec(id, at_ns);
                    if flow == 1 {
                        facts.path = None;
                        facts.args = None;
                        facts.event.image.flags = image_flags::PATH_TRUNCATED
                            | image_flags::ARGS_UNREADABLE
                            | image_flags::MEMFD;
                    }
                    Event::Exec(facts)
                }
                2 => exit(id, at_ns, flow),
                3 | 4 => {
                    let mut event = if what == 3 {
                        attempt(cookie, flow, at_ns)
                    } else {
                        datagram(cookie, flow, at_ns)
                    };
                    event.image = id;
                    event.flags |= attempt_flags;
                    Event::Attempt(event)
                }
                5 | 6 => Event::Outcome(outcome(cookie, flow, at_ns, error)),
                7 => Event::Wire(outcome(cookie, flow, at_ns, 0)),
                8 | 9 => {
                    let mut event = attempt(cookie, flow, at_ns);
                    event.image = id;
                    event.flags |= attempt_flags;
                    event.source = ipv4(5); // it is connected
                    if what == 8 {
                        Event::Use(event)
                    } else {
                        event.flags |= flags::ACCEPTED;
                        Event::Accept(event)
                    }
                }
                10 | 11 => {
                    let mut event = attempt(cookie, flow, at_ns);
                    event.image = id;
                    event.generation = 1;
                    event.verdict = verdict::DENY;
                    if what == 11 {
                        event.flags |= flags::SEND;
                    }
                    Event::Attempt(event)
                }
                12 => Event::Answer(Box::new(told(
                    ["one.test", "t\nwo.test", "three.test"][usize::try_from(flow - 1).unwrap()],
                    "10.0.0.7".parse().unwrap(),
                    if error == -1 { 0 } else { id.tgid },
                    at_ns,
                ))),
                _ => Event::Close(close(cookie, flow - 1, at_ns)),
            }
        })
}

proptest! {
    /// Whatever comes in whatever order, at whatever time it is asked for:
    /// numbers are consecutive and every record is one the schema knows.
    #[test]
    fn records_are_numbered_without_gaps(
        steps in prop::collection::vec((event(), 0..4_u8, 0..300 * MS), 0..60)
    ) {
        let mut engine = engine();
        let mut now_ns = NOW;
        let mut sequence = 0;
        let mut take = |engine: &mut Engine| {
            for record in records(engine) {
                sequence += 1;
                assert_eq!(record["event"]["sequence"], sequence);
            }
        };
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
                _ => {}
            }
            take(&mut engine);
        }
        engine.finish([]);
        engine.tick(now_ns + HOLD_NS);
        take(&mut engine);
        prop_assert!(!engine.is_waiting());
        for record in engine.who(&Query::default()) {
            checked(&record);
        }
    }
}
