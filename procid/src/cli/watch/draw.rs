//! Model and view on a screen: meant for 80 columns and 24 lines, and fine with
//! fewer. Without colours all is told by words; the selected row is in reverse
//! video, which is none.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table},
};
use unicode_width::UnicodeWidthChar as _;

use super::{
    detail,
    input::HELP,
    model::Model,
    ui::{Mode, Tab, Ui},
    view::{self, Column, Row, Tone, columns, rows},
};
use crate::cli::output::{count, printable};

/// Where the values of a detail begin; what is wrapped goes on there.
const VALUE_AT: usize = 11;

/// How to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Nanoseconds since the epoch.
    pub now_ns: i64,
    pub colour: bool,
}

/// Draws everything; returns how many rows there was room for.
pub fn draw(frame: &mut Frame<'_>, model: &Model, ui: &mut Ui, look: Look) -> usize {
    let [title, body, status, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let rows = rows(model, ui);
    draw_title(frame, title, model, ui, look);
    let page = if ui.mode == Mode::Help {
        draw_help(frame, body);
        0
    } else {
        draw_body(frame, body, model, ui, &rows, look)
    };
    draw_status(frame, status, model, ui, rows.len(), look);
    let text = match ui.mode {
        Mode::Browse => {
            "q quit  / filter  s sort  r reverse  Enter detail  Tab 1 2 3  p pause  ? keys"
        }
        Mode::Filter => "Enter keep  Esc clear  Ctrl-U start over",
        Mode::Help => "any key: back",
    };
    frame.render_widget(Line::from(text).style(faint()), keys);
    page
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Words say it too: the colour is for who has one.
fn painted(look: Look, colour: Color) -> Style {
    if look.colour {
        Style::new().fg(colour)
    } else {
        Style::new()
    }
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, model: &Model, ui: &Ui, look: Look) {
    let mut spans = vec![Span::styled("procid watch ", bold())];
    for (number, tab) in (1..).zip(Tab::ALL) {
        let many = match tab {
            Tab::Connections => model.connections().count(),
            Tab::Denials => model.denials().count(),
            Tab::Processes => model.images().count(),
        };
        let text = format!(" {number} {} {many} ", tab.name());
        let style = if tab == ui.tab {
            bold().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        spans.push(Span::styled(text, style));
    }
    frame.render_widget(Line::from(spans), area);
    let (state, style) = match (&model.gone, ui.is_paused) {
        (_, true) => (" paused", bold()),
        (Some(_), _) => (" no agent", painted(look, Color::Red)),
        (None, _) => (" live", painted(look, Color::Green)),
    };
    let state = Line::styled(state, style).alignment(Alignment::Right);
    frame.render_widget(state, right_end(area, " no agent".len()));
}

/// The last columns of a line.
fn right_end(area: Rect, columns: usize) -> Rect {
    let width = u16::try_from(columns).unwrap_or(u16::MAX).min(area.width);
    Rect {
        x: area.right() - width,
        width,
        ..area
    }
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines = HELP.map(|(key, what)| {
        Line::from(vec![
            Span::styled(format!(" {key:<15}"), bold()),
            Span::raw(what),
        ])
    });
    frame.render_widget(Paragraph::new(lines.to_vec()), area);
}

fn draw_body(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    ui: &mut Ui,
    rows: &[Row<'_>],
    look: Look,
) -> usize {
    let keys: Vec<&str> = rows.iter().map(Row::key).collect();
    let selected = ui.selected(&keys).and_then(|at| rows.get(at));
    let text = selected.filter(|_| ui.shows_detail).map(|row| {
        let width = usize::from(area.width);
        let lines = detail::lines(model, row);
        lines
            .iter()
            .flat_map(|line| wrapped(line, width))
            .collect::<Vec<_>>()
    });
    // The text gets what it needs, and leaves a third to the table.
    let pane = text.as_ref().map_or(0, |text| {
        let wanted = u16::try_from(text.len() + 1).unwrap_or(u16::MAX);
        wanted.min(area.height - area.height / 3)
    });
    let [table, pane] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(pane)]).areas(area);
    let page = usize::from(table.height.saturating_sub(1));
    let top = ui.top(&keys, page.max(1));
    draw_table(frame, table, model, ui, rows, top, look);
    if let Some(text) = text {
        draw_detail(frame, pane, ui, &text);
    }
    page
}

fn draw_table(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    ui: &Ui,
    rows: &[Row<'_>],
    top: usize,
    look: Look,
) {
    let columns = columns(ui.tab);
    let cell = |text: &str, is_right: bool| {
        let text = Text::from(text.to_owned());
        Cell::from(if is_right {
            text.alignment(Alignment::Right)
        } else {
            text
        })
    };
    let is_shown = |column: &&Column| column.from <= area.width;
    let shown = columns.iter().filter(is_shown);
    let header = shown.clone().map(|it| cell(it.name, it.is_right));
    let widths = shown.map(|it| match it.width {
        Some(width) => Constraint::Length(width),
        None => Constraint::Fill(1),
    });
    let sockets = view::sockets(model);
    let keys: Vec<&str> = rows.iter().map(Row::key).collect();
    let selected = ui.selected(&keys);
    let visible = rows.iter().enumerate().skip(top).take(area.height.into());
    let lines = visible.map(|(at, row)| {
        let mut style = match row.tone() {
            Tone::Plain => Style::new(),
            Tone::Faint => faint(),
            Tone::Warning => painted(look, Color::Yellow),
            Tone::Denied => painted(look, Color::Red),
        };
        if selected == Some(at) {
            style = style.add_modifier(Modifier::REVERSED);
        }
        let cells = row.cells(look.now_ns, &sockets);
        let cells = cells.iter().zip(columns);
        let shown = cells.filter(|(_, column)| is_shown(column));
        TableRow::new(shown.map(|(text, column)| cell(text, column.is_right))).style(style)
    });
    let table = Table::new(lines, widths)
        .header(TableRow::new(header).style(bold()))
        .column_spacing(1);
    frame.render_widget(table, area);
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, ui: &mut Ui, text: &[String]) {
    let height = usize::from(area.height.saturating_sub(1));
    ui.detail_from = ui.detail_from.min(text.len().saturating_sub(height));
    let last = (ui.detail_from + height).min(text.len());
    let title = format!(
        " lines {} to {last} of {}: PgUp PgDn, Enter closes ",
        (ui.detail_from + 1).min(last),
        text.len()
    );
    let lines: Vec<Line<'_>> = text
        .iter()
        .skip(ui.detail_from)
        .take(height)
        .map(|line| Line::from(line.as_str()))
        .collect();
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_status(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    ui: &Ui,
    shown: usize,
    look: Look,
) {
    if ui.mode == Mode::Filter {
        let line = Line::from(format!("/{}_  {}", ui.filter, count(shown as u64, "row")));
        frame.render_widget(line.style(bold()), area);
        return;
    }
    if let Some(why) = &model.gone {
        let text = format!("waiting for the agent: {}", printable(why));
        frame.render_widget(Line::styled(text, painted(look, Color::Red)), area);
        return;
    }
    let mut parts = Vec::new();
    if !ui.filter.is_empty() {
        let rows = count(shown as u64, "row");
        parts.push(format!("/{} {rows} (Esc clears)", printable(&ui.filter)));
    }
    if ui.tab != Tab::Processes {
        let way = if ui.is_reversed { ", reversed" } else { "" };
        parts.push(format!("by {}{way}", ui.sort.name()));
    }
    for (number, what) in [
        (model.lost, "lost by the agent"),
        (model.missed, "missed here"),
        (model.unshown, "beyond the room here"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    frame.render_widget(Line::from(parts.join("; ")), area);
}

/// Cuts a line to a width, between words where it can, a wide character counting
/// two; what goes on stands below the value.
pub fn wrapped(line: &str, width: usize) -> Vec<String> {
    let indent = if width > 3 * VALUE_AT { VALUE_AT } else { 0 };
    let mut lines = Vec::new();
    let mut current = String::new();
    let mut used = 0;
    for c in line.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns > width && used > indent {
            let word = match current.rfind(' ') {
                Some(space) if c != ' ' && space > indent => current.split_off(space + 1),
                _ => String::new(),
            };
            lines.push(current.trim_end().to_owned());
            current = format!("{:indent$}{word}", "");
            used = current.chars().filter_map(|c| c.width()).sum();
            if c == ' ' {
                continue;
            }
        }
        current.push(c);
        used += columns;
    }
    lines.push(current);
    lines
}

#[cfg(test)]
mod tests;
