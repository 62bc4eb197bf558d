//! docs/CONFORMANCE.md: written from cells, and read again.

use std::collections::BTreeMap;

use super::cell::{Cell, Level};

const HEAD: &str = "\
# Conformance

What procid's records say of every way out, every hand a socket passes through, every byte and
every image that hides, held to what the programs themselves say they did. Written by
`cargo xtask conformance --write`; a cell that is lost fails `cargo xtask test`.

| cell | says |
| --- | --- |
| ✓ = | attributed: each socket and each image that used it has its record, of the right image; bytes exact in both directions |
| ✓ | attributed; with a note, why bytes are not told |
| ⊘ | denied by a policy: the call fails with `EPERM`, nothing leaves (of what a passed socket's new holder sends), one record names rule and image |
| ⊘ dropped | the same, but the call succeeds; the note says why |
| – | not covered; the note says why |

No cell names a wrong image: one would fail the run.
";

/// Levels by row (section and path) and column.
pub(crate) type Levels = BTreeMap<(String, String), BTreeMap<String, Level>>;

/// What the cells say, in a form to compare.
pub(crate) fn levels(cells: &[Cell]) -> Levels {
    let mut levels = Levels::new();
    for cell in cells {
        levels
            .entry((cell.section.clone(), cell.path.clone()))
            .or_default()
            .insert(cell.column(), cell.level);
    }
    levels
}

/// The page that shows these cells, in their order.
pub(crate) fn write(cells: &[Cell]) -> String {
    let mut page = HEAD.to_owned();
    let mut notes = Vec::new();
    for section in in_order(cells, |cell| cell.section.clone()) {
        let cells: Vec<&Cell> = cells
            .iter()
            .filter(|cell| cell.section == section)
            .collect();
        page.push_str(&format!("\n## {section}\n\n"));
        page.push_str(&sizes(&cells));
        page.push_str(&table(&cells, &mut notes));
    }
    page.push_str("\n## Notes\n\n");
    for (number, note) in notes.iter().enumerate() {
        page.push_str(&format!("{}. {note}\n", number + 1));
    }
    page
}

fn table(cells: &[&Cell], notes: &mut Vec<String>) -> String {
    let columns = in_order(cells, |cell| cell.column());
    let mut table = format!("| path | {} |\n", columns.join(" | "));
    table.push_str(&format!("|{}\n", " --- |".repeat(columns.len() + 1)));
    for path in in_order(cells, |cell| cell.path.clone()) {
        let row: Vec<&&Cell> = cells.iter().filter(|cell| cell.path == path).collect();
        let what = row.first().map_or("", |cell| &cell.what);
        table.push_str(&format!("| `{path}` {what} |"));
        for column in &columns {
            let cell = row.iter().find(|cell| cell.column() == *column);
            let shown = cell.map_or_else(String::new, |cell| show(cell, notes));
            table.push_str(&format!(" {shown} |"));
        }
        table.push('\n');
    }
    table
}

fn show(cell: &Cell, notes: &mut Vec<String>) -> String {
    let mark = match cell.level {
        Level::Exact => "✓ =",
        Level::Attributed => "✓",
        Level::Denied => "⊘",
        Level::Dropped => "⊘ dropped",
        Level::None => "–",
    };
    let Some(reason) = &cell.reason else {
        return mark.to_owned();
    };
    let number = notes
        .iter()
        .position(|note| note == reason)
        .unwrap_or_else(|| {
            notes.push(reason.clone());
            notes.len() - 1
        });
    format!("{mark} {}", number + 1)
}

/// Which sizes were moved where.
fn sizes(cells: &[&Cell]) -> String {
    let mut lines = String::new();
    for kernel in in_order(cells, |cell| cell.kernel.clone()) {
        let mut of_kernel = cells.iter().filter(|cell| cell.kernel == kernel);
        if let Some(cell) = of_kernel.find(|cell| !cell.bytes.is_empty()) {
            let sizes: Vec<_> = cell.bytes.iter().map(u64::to_string).collect();
            lines.push_str(&format!("- {kernel}: {} bytes\n", sizes.join(", ")));
        }
    }
    if !lines.is_empty() {
        lines = format!("Each transfer was of\n\n{lines}\n");
    }
    lines
}

/// Different values in the order in which they first come.
fn in_order<T>(items: &[T], value: impl Fn(&T) -> String) -> Vec<String> {
    let mut values = Vec::new();
    for item in items {
        let value = value(item);
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// What a page written by [`write`] says.
pub(crate) fn read(page: &str) -> Levels {
    let mut levels = Levels::new();
    let mut section = "";
    let mut columns = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, first, values @ .., _] = &cells[..] else {
            continue;
        };
        if *first == "path" {
            columns = values.iter().map(|&column| column.to_owned()).collect();
        } else if let Some((path, _)) = first.strip_prefix('`').and_then(|row| row.split_once('`'))
        {
            let row = columns
                .iter()
                .cloned()
                .zip(values.iter().map(|shown| level(shown)));
            let row = row.filter_map(|(column, level)| Some((column, level?)));
            levels.insert((section.to_owned(), path.to_owned()), row.collect());
        }
    }
    levels
}

fn level(shown: &str) -> Option<Level> {
    match shown.split(' ').collect::<Vec<_>>()[..] {
        ["✓", "=", ..] => Some(Level::Exact),
        ["✓", ..] => Some(Level::Attributed),
        ["⊘", "dropped", ..] => Some(Level::Dropped),
        ["⊘", ..] => Some(Level::Denied),
        ["–", ..] => Some(Level::None),
        _ => None,
    }
}

/// What is covered on the page and not by these cells, in the columns that were
/// run, and what the page lacks; one sentence each.
pub(crate) fn lost(page: &Levels, now: &Levels) -> Vec<String> {
    let columns: Vec<&String> = now.values().flat_map(BTreeMap::keys).collect();
    let mut lost = Vec::new();
    for ((section, path), before) in page {
        let found = now.get(&(section.clone(), path.clone()));
        for (column, &was) in before.iter().filter(|(column, _)| columns.contains(column)) {
            let is = found.and_then(|row| row.get(column)).copied();
            if is.is_none_or(|is| is < was) {
                let is = is.map_or("not run".to_owned(), |is| format!("{is:?}"));
                lost.push(format!(
                    "{section}: {path} on {column} was {was:?}, is {is}"
                ));
            }
        }
    }
    for (section, path) in now.keys() {
        if !page.contains_key(&(section.clone(), path.clone())) {
            lost.push(format!("{section}: {path} has no row"));
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(path: &str, backend: &str, level: Level, reason: Option<&str>) -> Cell {
        Cell {
            section: "Ways out".to_owned(),
            path: path.to_owned(),
            what: "words".to_owned(),
            kernel: "6.1".to_owned(),
            backend: backend.to_owned(),
            bytes: vec![1, 65_536],
            level,
            reason: reason.map(str::to_owned),
        }
    }

    fn cells() -> [Cell; 4] {
        [
            cell("tcp", "lsm", Level::Exact, None),
            cell("tcp", "cgroup", Level::Attributed, Some("bytes: none")),
            cell("raw", "lsm", Level::Attributed, None),
            cell("raw", "cgroup", Level::None, Some("bytes: none")),
        ]
    }

    #[test]
    fn a_page_says_what_it_was_written_from() {
        let page = write(&cells());
        assert!(page.contains("| `tcp` words | ✓ = | ✓ 1 |"), "{page}");
        assert!(page.contains("| `raw` words | ✓ | – 1 |"), "{page}");
        assert!(page.contains("- 6.1: 1, 65536 bytes"), "{page}");
        assert_eq!(read(&page), levels(&cells()));
    }

    #[test]
    fn a_page_says_what_was_denied() {
        let cells = [
            cell("udp", "lsm", Level::Denied, None),
            cell("udp", "cgroup", Level::Dropped, Some("silently")),
        ];
        let page = write(&cells);
        assert!(page.contains("| `udp` words | ⊘ | ⊘ dropped 1 |"), "{page}");
        assert_eq!(read(&page), levels(&cells));
    }

    #[test]
    fn less_than_before_is_lost() {
        let page = levels(&cells());
        assert!(lost(&page, &page).is_empty());
        let mut now = cells();
        now[0].level = Level::Attributed;
        assert_eq!(lost(&page, &levels(&now)).len(), 1);
        now[0].level = Level::None;
        now[2].level = Level::None;
        assert_eq!(lost(&page, &levels(&now)).len(), 2);
    }

    #[test]
    fn a_path_that_was_not_run_is_lost_and_a_column_that_was_not_is_not() {
        let page = levels(&cells());
        let now = levels(&cells()[..2]);
        assert_eq!(lost(&page, &now).len(), 2);
        let now = [cells()[0].clone(), cells()[2].clone()];
        assert!(lost(&page, &levels(&now)).is_empty());
    }

    #[test]
    fn a_row_that_the_page_lacks_is_named() {
        let page = levels(&cells()[..2]);
        assert_eq!(lost(&page, &levels(&cells())), ["Ways out: raw has no row"]);
    }
}
