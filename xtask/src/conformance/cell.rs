//! Cells, as the conformance runner tells them.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// How each of the runner's cells begins.
pub(crate) const START: &str = r#"{"path":"#;

/// How much procid does on a path; what is less is a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    None,
    Attributed,
    Exact,
    /// Denied without a word to the program.
    Dropped,
    Denied,
}

/// One path on one kernel and backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) section: String,
    pub(crate) path: String,
    /// The path in words.
    pub(crate) what: String,
    pub(crate) kernel: String,
    pub(crate) backend: String,
    /// Sizes of transfers, where the path is run with several.
    pub(crate) bytes: Vec<u64>,
    pub(crate) level: Level,
    /// Why it is not more.
    pub(crate) reason: Option<String>,
}

impl Cell {
    /// The cell in a line of the runner's output, if the line is one.
    ///
    /// # Errors
    ///
    /// When it begins as one and is not whole.
    pub(crate) fn parse(line: &str) -> Result<Option<Self>> {
        if !line.starts_with(START) {
            return Ok(None);
        }
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("no cell: {line}"))?;
        let word = |field: &str| {
            let word = value[field].as_str();
            word.map(str::to_owned)
                .with_context(|| format!("a cell without {field}: {line}"))
        };
        let cell = word("cell")?;
        let (level, reason) = match cell.split_once(": ") {
            _ if cell == "attributed, bytes exact" => (Level::Exact, None),
            _ if cell == "attributed" => (Level::Attributed, None),
            _ if cell == "denied" => (Level::Denied, None),
            Some(("dropped", reason)) => (Level::Dropped, Some(reason.to_owned())),
            Some(("bytes", reason)) => (Level::Attributed, Some(format!("bytes: {reason}"))),
            _ => (Level::None, Some(cell)),
        };
        let sizes = value["bytes"].as_array();
        Ok(Some(Self {
            section: word("section")?,
            path: word("path")?,
            what: word("what")?,
            kernel: word("kernel")?,
            backend: word("backend")?,
            bytes: sizes
                .into_iter()
                .flatten()
                .filter_map(Value::as_u64)
                .collect(),
            level,
            reason,
        }))
    }

    /// The name of its column.
    pub(crate) fn column(&self) -> String {
        format!("{} {}", self.kernel, self.backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_runner_is_understood() {
        let line = |cell: &str| {
            format!(
                r#"{{"path":"tcp","what":"TCP","section":"Ways out","kernel":"6.1","backend":"lsm","cell":"{cell}"}}"#
            )
        };
        let level = |text: &str| {
            let cell = Cell::parse(&line(text)).unwrap().unwrap();
            (cell.level, cell.reason)
        };
        assert_eq!(level("attributed"), (Level::Attributed, None));
        assert_eq!(level("attributed, bytes exact"), (Level::Exact, None));
        let why = Some("bytes: a: b".to_owned());
        assert_eq!(level("bytes: a: b"), (Level::Attributed, why));
        let why = "not covered, because no LSM: none";
        assert_eq!(level(why), (Level::None, Some(why.to_owned())));
        assert_eq!(level("denied"), (Level::Denied, None));
        let why = Some("the kernel".to_owned());
        assert_eq!(level("dropped: the kernel"), (Level::Dropped, why));
        assert_eq!(level("FAILED"), (Level::None, Some("FAILED".to_owned())));
    }

    #[test]
    fn other_lines_are_no_cells() {
        assert_eq!(Cell::parse("test a ... ok").unwrap(), None);
        Cell::parse(r#"{"path":"tcp""#).unwrap_err();
        Cell::parse(r#"{"path":"tcp"}"#).unwrap_err();
    }
}
