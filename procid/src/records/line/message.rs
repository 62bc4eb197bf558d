//! A record as one sentence, where columns have no place.

use super::{Record, cut, detail, outcome, program, remote};

/// `curl[5580] connect allowed 203.0.113.7:443`, without a time.
pub fn message(record: &Record) -> String {
    let event = record.event.as_ref();
    let action = event.map_or("", |event| event.action.as_str());
    let process = record.process.as_deref();
    let mut words = program(action, process, record.procid.as_deref()).to_owned();
    if let Some(pid) = process.and_then(|process| process.pid) {
        words.push_str(&format!("[{pid}]"));
    }
    words.push(' ');
    words.push_str(action);
    words.push(' ');
    if event.is_some_and(|event| event.category.iter().any(|it| it == "network")) {
        words.push_str(&outcome(record).0);
        words.push(' ');
        words.push_str(&remote(record));
    } else {
        words.push_str(&detail(action, record));
    }
    cut(words.trim_end(), usize::MAX).into_owned()
}
