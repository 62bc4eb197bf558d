//! Tables: their keys, each with one value or a list.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::{Report, Wrong},
    words::{nearest, quoted},
};

pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A table of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'t> {
    /// What it is, in messages: `rule`.
    what: &'static str,
    /// Offset of its first byte.
    pub(super) at: usize,
    table: &'t DeTable<'t>,
}

impl<'t> Table<'t> {
    pub(super) fn new(what: &'static str, at: usize, table: &'t DeTable<'t>) -> Self {
        Self { what, at, table }
    }

    /// A value that must be a table which says something.
    pub(super) fn of(
        what: &'static str,
        value: &'t Value<'t>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let at = value.span().start;
        let wrong = match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => return Some(Self { what, at, table }),
            DeValue::Table(_) => Wrong::new("is empty", "fill it in, or leave it out"),
            other => Wrong::kind("a table", other, format!("write {what} = {{ … }}")),
        };
        report.error(at, wrong.of(what));
        None
    }

    /// The table under a key, if the key is there.
    pub(super) fn inner(&self, key: &'static str, report: &mut Report<'_>) -> Option<Self> {
        Self::of(key, self.value(key)?, report)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table.get(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Offset of a key's value; the table's own where it has none.
    pub(super) fn spot(&self, key: &str) -> usize {
        self.value(key).map_or(self.at, |value| value.span().start)
    }

    /// Reports each key that is not one of these.
    pub(super) fn known(&self, known: &[&str], report: &mut Report<'_>) {
        for (key, _) in self.table {
            if known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let help = match nearest(key.get_ref(), known.iter().copied()) {
                Some(near) => format!("write `{near}`, or remove it"),
                None => format!("remove it: {} has {}", self.what, known.join(", ")),
            };
            let message = format!("{} is not a key of {}", quoted(key.get_ref()), self.what);
            report.error(key.span().start, Wrong::new(message, help));
        }
    }

    /// The value of a key; `None`: it is not there, or wrong and reported.
    pub(super) fn one<T>(
        &self,
        key: &str,
        report: &mut Report<'_>,
        read: impl FnOnce(&'t DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.value(key)?;
        read(value.get_ref())
            .map_err(|wrong| report.error(value.span().start, wrong.of(key)))
            .ok()
    }

    /// The values of a key that takes one or a list; those that are wrong are
    /// reported and left out, as is an empty list.
    pub(super) fn many<T>(
        &self,
        key: &str,
        report: &mut Report<'_>,
        read: impl Fn(&'t DeValue<'t>) -> Result<T, Wrong>,
    ) -> Vec<T> {
        self.values(key, report)
            .into_iter()
            .filter_map(|value| {
                read(value.get_ref())
                    .map_err(|wrong| report.error(value.span().start, wrong.of(key)))
                    .ok()
            })
            .collect()
    }

    /// The values of a key, not read yet.
    pub(super) fn values(&self, key: &str, report: &mut Report<'_>) -> Vec<&'t Value<'t>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = value.get_ref() else {
            return vec![value];
        };
        if array.is_empty() {
            let wrong = Wrong::new(
                "is an empty list, which nothing matches",
                "give it a value, or leave it out to match everything",
            );
            report.error(value.span().start, wrong.of(key));
        }
        array.iter().collect()
    }
}
