//! What one looks at: tab, order, filter, selection.

use std::collections::HashMap;

/// One table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tab {
    #[default]
    Connections,
    Denials,
    Processes,
}

impl Tab {
    pub const ALL: [Self; 3] = [Self::Connections, Self::Denials, Self::Processes];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "Connections",
            Self::Denials => "Denials",
            Self::Processes => "Processes",
        }
    }

    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Connections => Self::Denials,
            Self::Denials => Self::Processes,
            Self::Processes => Self::Connections,
        }
    }

    #[must_use]
    pub const fn previous(self) -> Self {
        self.next().next()
    }
}

/// By what rows are ordered. Processes stand in their tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The youngest first.
    #[default]
    Age,
    Pid,
    Program,
    /// The most first.
    Bytes,
    Destination,
}

impl Sort {
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Age => Self::Pid,
            Self::Pid => Self::Program,
            Self::Program => Self::Bytes,
            Self::Bytes => Self::Destination,
            Self::Destination => Self::Age,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Pid => "pid",
            Self::Program => "program",
            Self::Bytes => "bytes",
            Self::Destination => "destination",
        }
    }
}

/// What keys mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Browse,
    /// They are the filter's text.
    Filter,
    Help,
}

/// What names a row from one look to the next: a flow and its image, a number,
/// an entity id.
pub type Key = String;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Ui {
    pub tab: Tab,
    pub sort: Sort,
    pub is_reversed: bool,
    pub filter: String,
    pub mode: Mode,
    /// All that is known of the selected row is shown.
    pub shows_detail: bool,
    /// Lines of it that are above the pane.
    pub detail_from: usize,
    pub is_paused: bool,
    pub has_ended: bool,
    places: HashMap<Tab, Place>,
}

/// Where one is in a table.
#[derive(Clone, Debug, Default)]
struct Place {
    /// The selected row; `None`: the first.
    key: Option<Key>,
    /// Where it was at the last look, for when it is gone.
    at: usize,
    /// First row on the screen.
    top: usize,
}

impl Ui {
    /// Selects the row that is `by` further down than the selected one, of
    /// those with these keys.
    pub fn step(&mut self, keys: &[&str], by: isize) {
        let at = self.selected(keys).unwrap_or(0);
        self.select(keys, at.saturating_add_signed(by));
    }

    pub fn select(&mut self, keys: &[&str], at: usize) {
        let at = at.min(keys.len().saturating_sub(1));
        self.detail_from = 0;
        let place = self.places.entry(self.tab).or_default();
        place.at = at;
        place.key = match keys.get(at) {
            // At the top one stays at the top, whatever comes.
            Some(key) if at > 0 || self.shows_detail => Some((*key).to_owned()),
            _ => None,
        };
    }

    /// Which of these rows is selected: where it is gone, the one in its place.
    pub fn selected(&self, keys: &[&str]) -> Option<usize> {
        let last = keys.len().checked_sub(1)?;
        let Some(place) = self.places.get(&self.tab) else {
            return Some(0);
        };
        let Some(key) = &place.key else {
            return Some(0);
        };
        let there = keys.iter().position(|there| there == key);
        Some(there.unwrap_or(place.at).min(last))
    }

    /// First row on a screen of `height` rows, so that the selected one is on it.
    pub fn top(&mut self, keys: &[&str], height: usize) -> usize {
        let Some(at) = self.selected(keys) else {
            return 0;
        };
        let place = self.places.entry(self.tab).or_default();
        place.at = at;
        let highest = (at + 1).saturating_sub(height);
        let lowest = at.min(keys.len().saturating_sub(height));
        place.top = place.top.clamp(highest.min(lowest), lowest.max(highest));
        place.top
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(keys: &[u8]) -> Vec<String> {
        keys.iter().map(u8::to_string).collect()
    }

    proptest! {
        /// Whatever rows come and go, the selected one is one of them, on the
        /// screen, and the same as long as it is there.
        #[test]
        fn the_selected_row_is_on_the_screen(
            looks in prop::collection::vec(
                (prop::collection::btree_set(any::<u8>(), 0..40), -50_isize..50, 1_usize..30),
                1..20,
            ),
        ) {
            let mut ui = Ui::default();
            let mut chosen: Option<String> = None;
            for (keys, by, height) in looks {
                let keys = names(&keys.into_iter().collect::<Vec<_>>());
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                if let Some(chosen) = &chosen
                    && keys.contains(&chosen.as_str())
                {
                    prop_assert_eq!(keys[ui.selected(&keys).unwrap()], chosen);
                }
                ui.step(&keys, by);
                let top = ui.top(&keys, height);
                let selected = ui.selected(&keys);
                prop_assert_eq!(selected.is_none(), keys.is_empty());
                chosen = None;
                if let Some(at) = selected {
                    prop_assert!((top..top + height).contains(&at), "{top} {at} {height}");
                    prop_assert!(top == 0 || top + height <= keys.len());
                    chosen = (at > 0).then(|| keys[at].to_owned());
                }
            }
        }
    }

    #[test]
    fn at_the_top_one_stays_at_the_top() {
        let mut ui = Ui::default();
        ui.select(&["b", "c"], 0);
        assert_eq!(ui.selected(&["a", "b", "c"]), Some(0));
        ui.select(&["a", "b", "c"], 1);
        assert_eq!(ui.selected(&["0", "a", "b", "c"]), Some(2));
        // Gone: who is in its place.
        assert_eq!(ui.selected(&["0", "a", "c"]), Some(1));
    }

    #[test]
    fn tabs_and_orders_go_round() {
        let mut tab = Tab::default();
        for expected in [Tab::Denials, Tab::Processes, Tab::Connections] {
            tab = tab.next();
            assert_eq!(tab, expected);
            assert_eq!(tab.previous().next(), tab);
        }
        let mut sort = Sort::default();
        for _ in 0..5 {
            sort = sort.next();
        }
        assert_eq!(sort, Sort::default());
    }
}
