//! Problems of a policy file, and their places.

use std::fmt;

use serde::Serialize;
use toml::de::DeValue;

use super::words::a_kind;

/// One problem of a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is no policy.
    Error,
    /// It is one, perhaps not the one that was meant.
    Warning,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (file, line, column) = (&self.file, self.line, self.column);
        let (message, help) = (&self.message, &self.help);
        write!(
            f,
            "{file}:{line}:{column}: {severity}: {message} (remedy: {help})"
        )
    }
}

/// What is wrong with a value, and how to mend it; its place is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    message: String,
    help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }

    /// A value of another type than what is asked for.
    pub(super) fn kind(asked: &str, found: &DeValue<'_>, help: impl Into<String>) -> Self {
        Self::new(format!("must be {asked}, not {}", a_kind(found)), help)
    }

    /// The value of that key is wrong.
    pub(super) fn of(self, key: &str) -> Self {
        Self {
            message: format!("`{key}`: {}", self.message),
            help: self.help,
        }
    }
}

/// The problems found so far.
#[derive(Debug)]
pub(super) struct Report<'a> {
    text: &'a str,
    file: &'a str,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    found: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        // A byte order mark takes no column.
        let first = text.len() - text.trim_start_matches('\u{feff}').len();
        let later = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            file,
            lines: std::iter::once(first).chain(later).collect(),
            found: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, at: usize, wrong: Wrong) {
        self.add(at, Severity::Error, wrong);
    }

    pub(super) fn warning(&mut self, at: usize, wrong: Wrong) {
        self.add(at, Severity::Warning, wrong);
    }

    fn add(&mut self, at: usize, severity: Severity, wrong: Wrong) {
        let line = self.line(at);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let end = self.text.floor_char_boundary(at).max(start);
        let before = self.text.get(start..end).unwrap_or_default();
        self.found.push(Diagnostic {
            file: self.file.to_owned(),
            line,
            column: before.chars().count() + 1,
            severity,
            message: wrong.message,
            help: wrong.help,
        });
    }

    /// The line, from 1, that holds the byte at an offset.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|&start| start <= at).max(1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn in_order(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|found| (found.line, found.column));
        self.found
    }

    /// Of each line the first problem only: one mistake in TOML makes others.
    pub(super) fn first_of_each_line(self) -> Vec<Diagnostic> {
        let mut found = self.in_order();
        found.dedup_by_key(|found| found.line);
        found
    }
}
