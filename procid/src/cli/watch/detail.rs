//! All that is known of the selected row.

use super::{
    model::{Model, entity},
    view::Row,
};
use crate::{
    cli::{
        output::printable,
        who::{ancestors::Ancestors, text::block},
    },
    records::Record,
};

/// Lines of text; nothing in them steers a terminal.
pub fn lines(model: &Model, row: &Row<'_>) -> Vec<String> {
    match row {
        Row::Connection(connection) => {
            let mut record = connection.record.clone();
            put_bytes(&mut record, connection.sent, connection.received);
            let mut lines = about(model, &record);
            lines.extend(end(model, &record));
            for speaker in &connection.speakers {
                lines.push(String::new());
                lines.push("also used by".to_owned());
                lines.extend(about(model, speaker).into_iter().skip(1));
            }
            lines
        }
        Row::Denial(denial) => {
            let mut lines = about(model, &denial.record);
            if let Some(rule) = &denial.record.rule {
                let name = rule.name.as_deref().unwrap_or("(default)");
                let version = rule.version.as_deref().unwrap_or("unknown");
                let (name, version) = (printable(name), printable(version));
                lines.insert(1, format!("rule       {name}, of policy {version}"));
            }
            lines.extend(end(model, &denial.record));
            lines
        }
        Row::Image(image, _) => {
            // The first line is about a connection.
            let mut lines: Vec<_> = about(model, &image.record).into_iter().skip(1).collect();
            lines.extend(end(model, &image.record));
            lines
        }
    }
}

fn put_bytes(record: &mut Record, sent: Option<u64>, received: Option<u64>) {
    let network = record.network.as_ref();
    let is_ingress = network.and_then(|it| it.direction.as_deref()) == Some("ingress");
    let (source, destination) = if is_ingress {
        (received, sent)
    } else {
        (sent, received)
    };
    for (end, bytes) in [
        (&mut record.source, source),
        (&mut record.destination, destination),
    ] {
        if let Some(end) = end {
            end.bytes = bytes;
        }
    }
}

/// As `procid who` tells it, without its margin.
fn about(model: &Model, record: &Record) -> Vec<String> {
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = block(record, &ancestors(model, record), &mut text);
    String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned())
        .collect()
}

/// Its ancestors, as far as they run.
fn ancestors(model: &Model, record: &Record) -> Ancestors {
    let mut ancestors = Ancestors::default();
    for entity in ancestors.wanted(record) {
        let image = model.image(&entity).map(|image| image.record.clone());
        ancestors.learn(entity, image);
    }
    ancestors
}

/// A last line where the image has ended.
fn end(model: &Model, record: &Record) -> Option<String> {
    let image = entity(record).and_then(|id| model.image(id))?;
    image.ended.is_some().then(|| "ended".to_owned())
}
