//! All that is known of the selected row.

use super::{
    model::{Model, entity},
    view::Row,
};
use crate::{
    cli::{output::printable, who::text::block},
    records::Record,
};

/// Lines of text; nothing in them steers a terminal.
pub fn lines(model: &Model, row: &Row<'_>) -> Vec<String> {
    match row {
        Row::Connection(connection) => {
            let mut record = connection.record.clone();
            put_bytes(&mut record, connection.sent, connection.received);
            let mut lines = about(&record);
            lines.extend(descent(model, &record));
            for speaker in &connection.speakers {
                lines.push(String::new());
                lines.push("also used by".to_owned());
                lines.extend(about(speaker).into_iter().skip(1));
            }
            lines
        }
        Row::Denial(denial) => {
            let mut lines = about(&denial.record);
            if let Some(rule) = &denial.record.rule {
                let name = rule.name.as_deref().unwrap_or("(default)");
                let version = rule.version.as_deref().unwrap_or("unknown");
                let (name, version) = (printable(name), printable(version));
                lines.insert(1, format!("rule       {name}, of policy {version}"));
            }
            lines.extend(descent(model, &denial.record));
            lines
        }
        Row::Image(image, _) => {
            // The first line is about a connection.
            let mut lines: Vec<_> = about(&image.record).into_iter().skip(1).collect();
            lines.extend(descent(model, &image.record));
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
fn about(record: &Record) -> Vec<String> {
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = block(record, &mut text);
    String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned())
        .collect()
}

/// The ancestors by name, nearest first, each on a line, as far as they run.
fn descent(model: &Model, record: &Record) -> Vec<String> {
    let ancestry = record.procid.as_ref().and_then(|it| it.ancestry.as_ref());
    let mut lines = Vec::new();
    for id in ancestry.into_iter().flatten() {
        let image = model.image(id);
        let process = image.and_then(|image| image.record.process.as_deref());
        let line = match process {
            Some(process) => {
                let pid = process.pid.unwrap_or(0);
                let path = process.executable.as_deref().or(process.name.as_deref());
                format!("{pid} {}", printable(path.unwrap_or("?")))
            }
            None => format!("(ended) {}", printable(id)),
        };
        let label = if lines.is_empty() { "child of" } else { "" };
        lines.push(format!("{label:<10} {line}"));
    }
    if let Some(id) = entity(record)
        && model.image(id).is_some_and(|image| image.ended.is_some())
    {
        lines.push("ended".to_owned());
    }
    lines
}
