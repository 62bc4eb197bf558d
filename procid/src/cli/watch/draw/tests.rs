//! Screens of 80 columns and 24 lines, and others.

use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent};
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};
use serde_json::json;

use super::{
    super::{
        feed::{News, Open},
        input::key,
        model::tests::{NOW, connect, image, record},
    },
    *,
};
use crate::records::Record;

/// A minute later.
const LATER: i64 = 1_795_350_660_000_000_000;

fn screen(model: &Model, ui: &mut Ui, width: u16, height: u16, colour: bool) -> (Buffer, usize) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let look = Look {
        now_ns: LATER,
        colour,
    };
    let mut page = 0;
    terminal
        .draw(|frame| page = draw(frame, model, ui, look))
        .unwrap();
    (terminal.backend().buffer().clone(), page)
}

/// The text of a screen, a string a line.
fn lines(model: &Model, ui: &mut Ui) -> Vec<String> {
    let (buffer, _) = screen(model, ui, 80, 24, false);
    text(&buffer)
}

fn text(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width);
    let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    cells
        .chunks(width)
        .map(|line| line.concat().trim_end().to_owned())
        .collect()
}

fn model(records: Vec<Record>) -> Model {
    let mut model = Model::default();
    for record in records {
        model.news(News::Record(Box::new(record)), Instant::now());
    }
    model
}

fn a_host() -> Model {
    let bytes = json!({"source": {"bytes": 1536}, "destination": {"bytes": 3 << 20}});
    let denied = json!({
        "procid": {"verdict": "deny"}, "rule": {"name": "nobody else", "version": "ee".repeat(32)},
    });
    let accepted = json!({
        "@timestamp": "2026-11-22T12:30:30.000000000Z",
        "event": {"action": "accept"}, "network": {"direction": "ingress"},
        "source": {"ip": "2001:db8::7", "port": 50000},
        "procid": {"role": "acceptor", "verdict": null},
    });
    let speaker = json!({"event": {"action": "send"}, "procid": {"role": "speaker"}});
    let mut model = model(vec![
        image(1, 0, "/sbin/init"),
        image(10, 1, "/usr/bin/prog10"),
        image(2, 1, "/usr/sbin/sshd"),
        connect("7.1", 10, 443, json!({})),
        connect("7.1", 2, 443, speaker),
        connect("8.1", 2, 22, accepted),
        connect("9.1", 10, 8081, denied),
        record(json!({"event": {"action": "exit"}, "process": {"entity_id": "entity-99"}})),
    ]);
    let counted = Open {
        records: vec![connect("7.1", 10, 443, bytes)],
        is_cut: true,
    };
    let now = Instant::now();
    model.news(
        News::Connections {
            asked: now,
            open: counted,
        },
        now,
    );
    model
}

fn press(model: &Model, ui: &mut Ui, codes: &[KeyCode]) {
    for code in codes {
        let rows = rows(model, ui);
        let keys: Vec<&str> = rows.iter().map(Row::key).collect();
        key(ui, KeyEvent::from(*code), &keys, 20);
    }
}

fn typed(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

const KEYS: &str = "q quit  / filter  s sort  r reverse  Enter detail  Tab 1 2 3  p pause  ? keys";

#[test]
fn connections_in_80_columns() {
    let mut ui = Ui::default();
    let screen = lines(&a_host(), &mut ui);
    assert_eq!(screen.len(), 24);
    assert_eq!(
        screen[..4],
        [
            "procid watch  1 Connections 2  2 Denials 1  3 Processes 3                   live",
            "    PID PROGRAM      SHA-256  STATE     OUT    IN  AGE DESTINATION",
            "      2 prog2        abababab open        -     -  30s < [2001:db8::7]:50000",
            "     10 prog10       abababab allow    1.5K  3.0M   1m 203.0.113.7:443 +1",
        ]
    );
    assert_eq!(screen[22], "by age");
    assert_eq!(screen[23], KEYS);
    assert!(screen[4..22].iter().all(String::is_empty));
}

#[test]
fn an_ipv4_address_and_port_have_their_room() {
    let far = json!({"destination": {"ip": "255.255.255.255", "port": 65535}});
    let model = model(vec![connect("7.1", 4_194_304, 1, far)]);
    let screen = lines(&model, &mut Ui::default());
    assert!(
        screen[2].ends_with(" 255.255.255.255:65535"),
        "{}",
        screen[2]
    );
    assert!(screen[2].starts_with("4194304 "), "{}", screen[2]);
}

/// What is told last is told still.
#[test]
fn a_narrow_screen_does_without_columns() {
    let host = a_host();
    let (buffer, _) = screen(&host, &mut Ui::default(), 45, 9, false);
    let screen = text(&buffer);
    assert_eq!(screen[1], "    PID PROGRAM      DESTINATION");
    assert_eq!(screen[3], "     10 prog10       203.0.113.7:443 +1");
}

#[test]
fn the_other_tabs() {
    let host = a_host();
    let mut ui = Ui::default();
    press(&host, &mut ui, &typed("2"));
    let screen = lines(&host, &mut ui);
    assert_eq!(
        screen[1],
        "TIME         PID PROGRAM    SHA-256  WHAT  DESTINATION           RULE"
    );
    // The hour is the zone's.
    assert!(
        screen[2]
            .contains(":30:00      10 prog10     abababab deny  203.0.113.7:8081      nobody else"),
        "{}",
        screen[2]
    );
    press(&host, &mut ui, &[KeyCode::Tab]);
    let screen = lines(&host, &mut ui);
    assert_eq!(
        screen[1..5],
        [
            "    PID   USER SOCK SHA-256  GRADE     IMAGE",
            "      1      0    0 cdcdcdcd verified  /sbin/init",
            "      2      0    2 cdcdcdcd verified    /usr/sbin/sshd",
            "     10      0    1 cdcdcdcd verified    /usr/bin/prog10",
        ]
    );
}

#[test]
fn a_row_tells_all_of_it() {
    let host = a_host();
    let mut ui = Ui::default();
    press(&host, &mut ui, &[KeyCode::Down, KeyCode::Enter]);
    let text = lines(&host, &mut ui).join("\n");
    for piece in [
        "tcp 10.0.0.5:40000 -> 203.0.113.7:443, egress, connect success",
        "process    prog10, pid 10, /usr/bin/prog10, entity entity-10",
        &format!("sha256     {}\n", "ab".repeat(32)),
        "           (verified)",
    ] {
        assert!(text.contains(piece), "{piece:?} is not in\n{text}");
    }
    // The rest is a page further down.
    press(&host, &mut ui, &[KeyCode::PageDown; 9]);
    let text = lines(&host, &mut ui).join("\n");
    for piece in [
        "also used by",
        "process    prog2, pid 2",
        "role       speaker",
    ] {
        assert!(text.contains(piece), "{piece:?} is not in\n{text}");
    }
    press(&host, &mut ui, &[KeyCode::PageUp; 2]);
    let text = lines(&host, &mut ui).join("\n");
    assert!(
        text.contains("ancestry") && text.contains("pid 1, /sbin/init"),
        "{text}"
    );
    assert!(
        text.contains("bytes      1536 sent, 3145728 received"),
        "{text}"
    );
    press(&host, &mut ui, &[KeyCode::Enter]);
    assert!(!lines(&host, &mut ui).join("\n").contains("also used by"));
}

#[test]
fn a_filter_shows_what_holds_each_word() {
    let host = a_host();
    let mut ui = Ui::default();
    press(&host, &mut ui, &typed("/PROG10 443"));
    let screen = lines(&host, &mut ui);
    assert_eq!(screen[22], "/PROG10 443_  1 row");
    assert!(screen[2].contains("prog10"), "{screen:?}");
    assert_eq!(screen[3], "");
    press(&host, &mut ui, &typed("x"));
    press(&host, &mut ui, &[KeyCode::Enter]);
    let screen = lines(&host, &mut ui);
    assert_eq!(screen[2], "");
    assert_eq!(screen[22], "/PROG10 443x 0 rows (Esc clears); by age");
}

#[test]
fn rows_are_in_the_order_asked_for() {
    let host = model(vec![
        connect(
            "1.1",
            30,
            300,
            json!({"process": {"name": "b"}, "source": {"bytes": 5}}),
        ),
        connect(
            "2.1",
            10,
            200,
            json!({"process": {"name": "c"}, "source": {"bytes": 9}}),
        ),
        connect(
            "3.1",
            20,
            100,
            json!({"process": {"name": "a"}, "source": {"bytes": 7}}),
        ),
    ]);
    let mut ui = Ui::default();
    let mut orders = Vec::new();
    for _ in 0..5 {
        press(&host, &mut ui, &typed("s"));
        let order = rows(&host, &ui);
        let order: String = order.iter().map(|row| &row.key()[..1]).collect();
        orders.push((ui.sort.name(), order));
    }
    let orders: Vec<_> = orders
        .iter()
        .map(|(by, order)| (*by, order.as_str()))
        .collect();
    assert_eq!(
        orders,
        [
            ("pid", "231"),
            ("program", "312"),
            ("bytes", "231"),
            ("destination", "321"),
            ("age", "123"),
        ]
    );
    press(&host, &mut ui, &typed("sr"));
    let order: Vec<_> = rows(&host, &ui)
        .iter()
        .map(Row::key)
        .map(str::to_owned)
        .collect();
    assert_eq!(order, ["1.1", "3.1", "2.1"]);
    assert_eq!(lines(&host, &mut ui)[22], "by pid, reversed");
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let mut host = a_host();
    host.lost = 4;
    host.missed = 9;
    let mut ui = Ui::default();
    let screen = lines(&host, &mut ui);
    assert_eq!(screen[22], "by age; 4 lost by the agent; 9 missed here");
    host.gone = Some("no agent answers\u{1b}[2J".to_owned());
    let screen = lines(&host, &mut ui);
    assert!(screen[0].ends_with(" no agent"), "{}", screen[0]);
    assert_eq!(
        screen[22],
        "waiting for the agent: no agent answers\\u{1b}[2J"
    );
    press(&host, &mut ui, &typed("p"));
    assert!(lines(&host, &mut ui)[0].ends_with(" paused"));
    press(&host, &mut ui, &typed("?"));
    let text = lines(&host, &mut ui).join("\n");
    for (key, what) in HELP {
        assert!(text.contains(key) && text.contains(what), "{text}");
    }
}

/// Without colours nothing is coloured; with them, what is denied is.
#[test]
fn colours_are_for_who_wants_them() {
    let host = a_host();
    let mut ui = Ui::default();
    press(&host, &mut ui, &typed("2"));
    let has_colour = |buffer: &Buffer| {
        let mut cells = buffer.content().iter();
        cells.any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(!has_colour(&screen(&host, &mut ui, 80, 24, false).0));
    assert!(has_colour(&screen(&host, &mut ui, 80, 24, true).0));
}

#[test]
fn text_is_wrapped_below_its_value() {
    let line = format!("arguments  {}", "x".repeat(60));
    let lines = wrapped(&line, 40);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], format!("           {}", "x".repeat(29)));
    assert_eq!(wrapped("日本語", 4), ["日本", "語"]);
    assert_eq!(wrapped("", 10), [""]);
    assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
    assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
}

proptest! {
    /// On any screen, whatever processes call themselves: nothing panics, and
    /// no cell holds what a terminal would act on.
    #[test]
    fn hostile_names_are_harmless_on_any_screen(
        name in any::<String>(),
        argument in "[\\x00-\\x1f\\x7f-\\u{9f}\\u{202e}a-z\\[\\];]{0,40}",
        size in (1_u16..140, 1_u16..50),
        pressed in prop::collection::vec(0_usize..8, 0..6),
    ) {
        let hostile = json!({
            "process": {"name": name, "executable": argument, "command_line": argument,
                        "entity_id": "entity-10"},
            "rule": {"name": name},
        });
        let denied = json!({"procid": {"verdict": "deny"}});
        let mut records = vec![connect("7.1", 10, 443, hostile)];
        let mut denial = connect("8.1", 10, 443, denied);
        denial.process = records[0].process.clone();
        denial.rule = records[0].rule.clone();
        records.push(denial);
        let mut born = image(10, 1, "/x");
        born.process = records[0].process.clone();
        records.push(born);
        let mut host = model(records);
        host.gone = (size.0 % 2 == 0).then(|| argument.clone());
        let mut ui = Ui::default();
        for which in pressed {
            let code = [
                KeyCode::Tab, KeyCode::Enter, KeyCode::Down, KeyCode::PageDown,
                KeyCode::Char('?'), KeyCode::Char('/'), KeyCode::Char('p'), KeyCode::Char('s'),
            ][which];
            press(&host, &mut ui, &[code]);
            let (buffer, _) = screen(&host, &mut ui, size.0, size.1, true);
            for cell in buffer.content() {
                prop_assert!(cell.symbol().chars().all(crate::records::escape::is_printable));
            }
        }
    }
}

#[test]
fn now_is_a_minute_later() {
    let then: jiff::Timestamp = NOW.parse().unwrap();
    assert_eq!(i128::from(LATER) - then.as_nanosecond(), 60_000_000_000);
}
