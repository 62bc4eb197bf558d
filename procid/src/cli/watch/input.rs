//! Keys to changes of what one looks at.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::ui::{Mode, Tab, Ui};
use crate::records::escape::is_printable;

/// Longest filter, characters.
const FILTER_MAX: usize = 200;

/// The keys, and what each does.
pub const HELP: [(&str, &str); 14] = [
    ("q, Ctrl-C", "quit"),
    ("Tab, 1 2 3", "connections, denials, processes"),
    ("Up Down, j k", "select a row"),
    (
        "PgUp PgDn",
        "a page up or down; of an open detail, its text",
    ),
    ("Home End, g G", "the first row, the last"),
    (
        "Enter",
        "all that is known of the selected row; again: close",
    ),
    ("/", "filter: rows that hold each of the words, as you type"),
    ("Esc", "close the detail; then, clear the filter"),
    ("s", "sort by the next column"),
    ("r", "the other way round"),
    ("p, Space", "pause: nothing moves until pressed again"),
    ("?", "these keys"),
    (
        "in a filter",
        "Enter keeps it, Esc clears it, Ctrl-U starts over",
    ),
    (
        "",
        "a filter looks at every column, path, argument and rule",
    ),
];

/// A key was pressed while the rows had these keys, `page` of them on the screen.
pub fn key(ui: &mut Ui, event: KeyEvent, keys: &[&str], page: usize) {
    if event.kind == KeyEventKind::Release {
        return;
    }
    let is_control = event.modifiers.contains(KeyModifiers::CONTROL);
    if is_control && event.code == KeyCode::Char('c') {
        ui.has_ended = true;
        return;
    }
    match ui.mode {
        Mode::Help => ui.mode = Mode::Browse,
        Mode::Filter => filter(ui, event.code, is_control),
        Mode::Browse if !is_control => browse(ui, event.code, keys, page),
        Mode::Browse => {}
    }
}

fn filter(ui: &mut Ui, code: KeyCode, is_control: bool) {
    match code {
        KeyCode::Enter => ui.mode = Mode::Browse,
        KeyCode::Esc => {
            ui.filter.clear();
            ui.mode = Mode::Browse;
        }
        KeyCode::Backspace => {
            ui.filter.pop();
        }
        KeyCode::Char('u') if is_control => ui.filter.clear(),
        KeyCode::Char(c)
            if !is_control && is_printable(c) && ui.filter.chars().count() < FILTER_MAX =>
        {
            ui.filter.push(c);
        }
        _ => {}
    }
}

fn browse(ui: &mut Ui, code: KeyCode, keys: &[&str], page: usize) {
    let page = isize::try_from(page.max(1)).unwrap_or(isize::MAX);
    match code {
        KeyCode::Char('q') => ui.has_ended = true,
        KeyCode::Char('?') => ui.mode = Mode::Help,
        KeyCode::Char('/') => ui.mode = Mode::Filter,
        KeyCode::Char('s') => ui.sort = ui.sort.next(),
        KeyCode::Char('r') => ui.is_reversed = !ui.is_reversed,
        KeyCode::Char('p' | ' ') => ui.is_paused = !ui.is_paused,
        KeyCode::Tab => look_at(ui, ui.tab.next()),
        KeyCode::BackTab => look_at(ui, ui.tab.previous()),
        KeyCode::Char('1') => look_at(ui, Tab::Connections),
        KeyCode::Char('2') => look_at(ui, Tab::Denials),
        KeyCode::Char('3') => look_at(ui, Tab::Processes),
        KeyCode::Up | KeyCode::Char('k') => ui.step(keys, -1),
        KeyCode::Down | KeyCode::Char('j') => ui.step(keys, 1),
        KeyCode::PageUp if ui.shows_detail => {
            ui.detail_from = ui.detail_from.saturating_sub(PANE_STEP);
        }
        // Drawing knows where its end is.
        KeyCode::PageDown if ui.shows_detail => ui.detail_from += PANE_STEP,
        KeyCode::PageUp => ui.step(keys, -page),
        KeyCode::PageDown => ui.step(keys, page),
        KeyCode::Home | KeyCode::Char('g') => ui.select(keys, 0),
        KeyCode::End | KeyCode::Char('G') => ui.select(keys, usize::MAX),
        KeyCode::Enter => {
            ui.shows_detail = !ui.shows_detail;
            // From here on it is this row, wherever it goes.
            ui.step(keys, 0);
        }
        KeyCode::Esc if ui.shows_detail => ui.shows_detail = false,
        KeyCode::Esc => ui.filter.clear(),
        _ => {}
    }
}

/// Lines by which the text of a row moves.
const PANE_STEP: usize = 5;

fn look_at(ui: &mut Ui, tab: Tab) {
    ui.tab = tab;
    ui.shows_detail = false;
    ui.detail_from = 0;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn press(ui: &mut Ui, codes: impl IntoIterator<Item = KeyCode>) {
        for code in codes {
            key(ui, KeyEvent::from(code), &["a", "b", "c", "d"], 2);
        }
    }

    fn text(text: &str) -> Vec<KeyCode> {
        text.chars().map(KeyCode::Char).collect()
    }

    #[test]
    fn a_filter_is_typed_kept_and_cleared() {
        let mut ui = Ui::default();
        press(&mut ui, text("/quit\u{1b}\u{202e}q"));
        assert_eq!((ui.filter.as_str(), ui.has_ended), ("quitq", false));
        press(&mut ui, [KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((ui.filter.as_str(), ui.mode), ("quit", Mode::Browse));
        press(&mut ui, [KeyCode::Esc]);
        assert_eq!(ui.filter, "");
        press(&mut ui, text("/x"));
        let again = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
        key(&mut ui, again, &[], 2);
        assert_eq!((ui.filter.as_str(), ui.mode), ("", Mode::Filter));
        press(&mut ui, text(&"y".repeat(2 * FILTER_MAX)));
        assert_eq!(ui.filter.len(), FILTER_MAX);
        press(&mut ui, [KeyCode::Esc]);
        assert_eq!((ui.filter.as_str(), ui.mode), ("", Mode::Browse));
    }

    #[test]
    fn keys_move_and_open() {
        let keys = ["a", "b", "c", "d"];
        let mut ui = Ui::default();
        press(&mut ui, text("jj"));
        assert_eq!(ui.selected(&keys), Some(2));
        press(&mut ui, [KeyCode::PageDown]);
        assert_eq!(ui.selected(&keys), Some(3));
        press(&mut ui, [KeyCode::Enter, KeyCode::PageDown]);
        assert_eq!((ui.selected(&keys), ui.detail_from), (Some(3), PANE_STEP));
        press(&mut ui, [KeyCode::Tab]);
        assert_eq!((ui.tab, ui.shows_detail), (Tab::Denials, false));
        press(&mut ui, text("1"));
        assert_eq!(ui.selected(&keys), Some(3));
        press(&mut ui, text("g?x"));
        assert_eq!((ui.selected(&keys), ui.mode), (Some(0), Mode::Browse));
        assert!(!ui.has_ended);
        press(&mut ui, text("pq"));
        assert!(ui.is_paused && ui.has_ended);
    }

    proptest! {
        /// No key does harm, whatever there is to see.
        #[test]
        fn any_keys_may_be_pressed(
            pressed in prop::collection::vec((any::<char>(), 0_usize..12, any::<bool>()), 0..100),
            rows in 0_usize..5,
        ) {
            let keys = ["a", "b", "c", "d", "e"];
            let mut ui = Ui::default();
            for (c, which, is_control) in pressed {
                let code = [
                    KeyCode::Char(c), KeyCode::Up, KeyCode::Down, KeyCode::PageUp,
                    KeyCode::PageDown, KeyCode::Home, KeyCode::End, KeyCode::Enter,
                    KeyCode::Esc, KeyCode::Tab, KeyCode::Backspace, KeyCode::BackTab,
                ][which];
                let held = if is_control { KeyModifiers::CONTROL } else { KeyModifiers::NONE };
                key(&mut ui, KeyEvent::new(code, held), &keys[..rows], 3);
                prop_assert!(ui.filter.chars().all(is_printable));
                prop_assert!(ui.selected(&keys[..rows]).is_none_or(|at| at < rows));
            }
        }
    }
}
