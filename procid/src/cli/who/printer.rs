//! Records in the format asked for, and what the answer covers.

use std::io::{self, Write};

use super::{ancestors::Ancestors, csv, text};
use crate::{
    cli::{
        failure::{Code, Failure},
        output::{local, losses, printable},
    },
    records::{Coverage, Procid, Record},
};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Csv,
}

/// Prints one answer.
#[derive(Debug)]
pub struct Printer<W> {
    format: Format,
    out: W,
    found: u64,
    /// What text names of them.
    pub ancestors: Ancestors,
}

impl<W: Write> Printer<W> {
    pub fn new(format: Format, out: W) -> Self {
        Self {
            format,
            out,
            found: 0,
            ancestors: Ancestors::default(),
        }
    }

    /// Ancestors are named with each record.
    pub fn names_ancestors(&self) -> bool {
        self.format == Format::Text
    }

    /// Ancestors that would be named with a record, and are not known yet.
    pub fn wanted(&self, record: &Record) -> Vec<String> {
        if self.names_ancestors() {
            self.ancestors.wanted(record)
        } else {
            Vec::new()
        }
    }

    /// What stands before the first record.
    ///
    /// # Errors
    ///
    /// The output is gone.
    pub fn begin(&mut self) -> Result<(), Failure> {
        let written = match self.format {
            Format::Csv => csv::header(&mut self.out),
            Format::Text | Format::Json => Ok(()),
        };
        written.map_err(|error| Failure::of_stdout(&error))
    }

    /// # Errors
    ///
    /// The output is gone.
    pub fn record(&mut self, record: &Record) -> Result<(), Failure> {
        self.found += 1;
        let written = match self.format {
            Format::Json => json(record, &mut self.out),
            Format::Csv => csv::row(record, &mut self.out),
            Format::Text => text::block(record, &self.ancestors, &mut self.out),
        };
        written.map_err(|error| Failure::of_stdout(&error))
    }

    /// # Errors
    ///
    /// The output is gone.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::of_stdout(&error))
    }

    /// Says what the answer covers: in JSON as its last record, in text as its
    /// last lines; beside a table, and where nothing matched, on stderr.
    ///
    /// # Errors
    ///
    /// The output is gone; or nothing matched, with what was covered.
    pub fn end(&mut self, coverage: Option<&Coverage>) -> Result<Code, Failure> {
        let found = self.found > 0;
        let lines = covered(coverage);
        let written = match self.format {
            Format::Json => coverage.map_or(Ok(()), |coverage| {
                let record = Record {
                    procid: Some(Box::new(Procid {
                        coverage: Some(coverage.clone()),
                        ..Procid::default()
                    })),
                    ..Record::default()
                };
                json(&record, &mut self.out)
            }),
            Format::Text if found => writeln!(self.out, "{}", lines.join("\n  ")),
            Format::Csv if found => {
                let _gone = writeln!(io::stderr(), "procid: {}", lines.join("; "));
                Ok(())
            }
            Format::Text | Format::Csv => Ok(()),
        };
        written.map_err(|error| Failure::of_stdout(&error))?;
        self.flush()?;
        match (found, self.format) {
            (true, _) => Ok(Code::Done),
            (false, Format::Json) => Ok(Code::Nothing),
            (false, Format::Text | Format::Csv) => Err(Failure {
                code: Code::Nothing,
                message: format!("no connection matched; {}", lines.join("; ")),
            }),
        }
    }
}

fn json(record: &Record, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

/// What an answer could have missed: its time and losses, then each path that
/// is not covered.
pub(in crate::cli) fn covered(coverage: Option<&Coverage>) -> Vec<String> {
    let Some(coverage) = coverage else {
        return vec!["what the answer covers is not known".to_owned()];
    };
    let to = local(&coverage.to);
    let span = match &coverage.from {
        Some(from) => format!("covered {} to {to}", local(from)),
        None => format!("covered what was open at {to}"),
    };
    let first = format!(
        "{span}, {}; records lost: {}",
        printable(&coverage.provenance),
        losses(&coverage.lost)
    );
    let uncovered = coverage.uncovered.iter().map(|u| {
        format!(
            "not covered: {}: {}",
            printable(&u.path),
            printable(&u.reason)
        )
    });
    let gaps = coverage.gaps.iter().map(|gap| {
        let to = local(&gap.to);
        let span = match &gap.from {
            Some(from) => format!("{} to {to}", local(from)),
            None => format!("until {to}"),
        };
        let count = gap
            .count
            .map_or_else(String::new, |count| format!(", {count} facts"));
        format!("missing {span}: {}{count}", printable(&gap.cause))
    });
    std::iter::once(first)
        .chain(gaps)
        .chain(uncovered)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Uncovered;

    fn coverage() -> Coverage {
        Coverage {
            to: "2026-11-22T15:04:05.000000000Z".to_owned(),
            lost: [("ring".to_owned(), 3)].into(),
            uncovered: vec![Uncovered {
                path: "AF_PACKET".to_owned(),
                reason: "no LSM".to_owned(),
            }],
            provenance: "snapshot".to_owned(),
            ..Coverage::default()
        }
    }

    #[test]
    fn an_answer_that_finds_nothing_says_what_was_covered() {
        let mut out = Vec::new();
        let failure = Printer::new(Format::Text, &mut out)
            .end(Some(&coverage()))
            .unwrap_err();
        assert_eq!(failure.code, Code::Nothing);
        assert!(
            failure
                .message
                .starts_with("no connection matched; covered what was open at 2026-11-2")
        );
        assert!(
            failure
                .message
                .ends_with(", snapshot; records lost: 3 ring; not covered: AF_PACKET: no LSM"),
            "{}",
            failure.message
        );
        assert!(out.is_empty());
    }

    #[test]
    fn json_ends_with_the_coverage_record() {
        let mut out = Vec::new();
        let mut printer = Printer::new(Format::Json, &mut out);
        printer.record(&Record::default()).unwrap();
        assert_eq!(printer.end(Some(&coverage())), Ok(Code::Done));
        let lines: Vec<Record> = out
            .split(|&b| b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        let last = lines.last().and_then(|r| r.procid.as_ref()).unwrap();
        assert_eq!(last.coverage, Some(coverage()));

        let mut printer = Printer::new(Format::Json, io::sink());
        assert_eq!(printer.end(Some(&coverage())), Ok(Code::Nothing));
    }
}
