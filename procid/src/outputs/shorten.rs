//! A record for an output whose messages have a largest length.
//!
//! Fields go in the order of [`STEPS`] until it fits; `procid.unknown` names
//! what is gone. What says who did what to whom stays.

use crate::records::{Process, Procid, Record};

const REASON: &str = "left out: too long for this output";

/// What goes: its name, and how; false where there was none.
type Step = (&'static str, fn(&mut Record) -> bool);

const STEPS: [Step; 10] = [
    ("process.args", |record| {
        let mut gone = false;
        each_process(record, &mut |process| {
            gone |= process.args.take().is_some();
            gone |= process.command_line.take().is_some();
        });
        gone
    }),
    ("procid.uncovered", |record| {
        in_procid(record, |procid| procid.uncovered.take().is_some())
    }),
    ("procid.hooks", |record| {
        in_procid(record, |procid| procid.hooks.take().is_some())
    }),
    ("procid.ancestry", |record| {
        in_procid(record, |procid| procid.ancestry.take().is_some())
    }),
    ("procid.holders", |record| {
        in_procid(record, |procid| procid.holders.take().is_some())
    }),
    ("process.parent", |record| {
        record
            .process
            .as_mut()
            .is_some_and(|process| process.parent.take().is_some())
    }),
    ("process.previous", |record| {
        record
            .process
            .as_mut()
            .is_some_and(|process| process.previous.take().is_some())
    }),
    ("procid.script", |record| {
        in_procid(record, |procid| procid.script.take().is_some())
    }),
    ("process.executable", |record| {
        let mut gone = false;
        each_process(record, &mut |process| {
            gone |= process.executable.take().is_some();
            gone |= process.name.take().is_some();
        });
        gone
    }),
    ("event.reason", |record| {
        record
            .event
            .as_mut()
            .is_some_and(|event| event.reason.take().is_some())
    }),
];

/// The record as JSON, without as few fields as will do; `None`: it does not fit
/// without all of them either.
pub fn shorten(mut record: Record, fits: impl Fn(&str) -> bool) -> Option<String> {
    for (name, leave_out) in STEPS {
        if !leave_out(&mut record) {
            continue;
        }
        let procid = record.procid.get_or_insert_default();
        procid.unknown.insert(name.to_owned(), REASON.to_owned());
        let json = serde_json::to_string(&record).ok()?;
        if fits(&json) {
            return Some(json);
        }
    }
    None
}

fn in_procid(record: &mut Record, leave_out: fn(&mut Procid) -> bool) -> bool {
    record.procid.as_deref_mut().is_some_and(leave_out)
}

/// The record's process, and those that it names beside it.
fn each_process(record: &mut Record, change: &mut impl FnMut(&mut Process)) {
    let opener = record
        .procid
        .as_mut()
        .and_then(|it| it.opener.as_deref_mut());
    for process in record.process.as_deref_mut().into_iter().chain(opener) {
        change(process);
        let others = [&mut process.parent, &mut process.previous];
        for other in others.into_iter().flatten() {
            change(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Event;

    fn process(executable: &str) -> Process {
        Process {
            entity_id: Some("entity".to_owned()),
            executable: Some(executable.to_owned()),
            args: Some(vec!["x".repeat(300)]),
            ..Process::default()
        }
    }

    fn record() -> Record {
        Record {
            event: Some(Event {
                sequence: Some(7),
                ..Event::default()
            }),
            process: Some(Box::new(Process {
                parent: Some(Box::new(process("/parent"))),
                ..process("/own")
            })),
            procid: Some(Box::new(Procid {
                ancestry: Some(vec!["y".repeat(300)]),
                opener: Some(Box::new(process("/opener"))),
                ..Procid::default()
            })),
            ..Record::default()
        }
    }

    #[test]
    fn arguments_go_first_and_what_is_gone_is_named() {
        let json = shorten(record(), |json| !json.contains("xxx")).unwrap();
        let record: Record = serde_json::from_str(&json).unwrap();
        let procid = record.procid.unwrap();
        assert_eq!(procid.unknown.keys().collect::<Vec<_>>(), ["process.args"]);
        assert!(procid.ancestry.is_some());
        assert_eq!(record.event.unwrap().sequence, Some(7));
    }

    #[test]
    fn who_did_it_stays() {
        let json = shorten(record(), |json| !json.contains("/own")).unwrap();
        let record: Record = serde_json::from_str(&json).unwrap();
        let process = record.process.unwrap();
        assert_eq!(process.entity_id.as_deref(), Some("entity"));
        assert!(process.parent.is_none() && process.executable.is_none());
        let unknown = record.procid.unwrap().unknown;
        let gone = [
            "process.args",
            "process.executable",
            "process.parent",
            "procid.ancestry",
        ];
        assert_eq!(unknown.keys().collect::<Vec<_>>(), gone);
    }

    #[test]
    fn what_does_not_fit_at_all_is_nothing() {
        assert_eq!(shorten(record(), |_| false), None);
        assert_eq!(shorten(Record::default(), |_| true), None);
    }
}
