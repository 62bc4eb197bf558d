//! Bytes that a process chose, made harmless for a line and a terminal.
//!
//! Names, paths and arguments are the process's own and may hold anything: a
//! newline to fake a second record, an escape sequence to recolour or retitle
//! a terminal, a bidirectional override to make `exe.txt` read as `txt.exe`.
//! [`escape`] turns them into text that prints as itself and still says
//! exactly which bytes there were:
//!
//! | input | output |
//! | --- | --- |
//! | backslash | `\\` |
//! | a byte that is not UTF-8, or an ASCII control character | `\xNN` |
//! | another control, format or line-separating character | `\u{N}` |
//! | anything else | itself |
//!
//! Every backslash in the output starts an escape, so that no two inputs give
//! one output.

use std::{borrow::Cow, fmt::Write as _};

/// Code points beyond ASCII that print as nothing, reorder text or break a
/// line: C1 controls, the general categories Cf, Zl and Zp.
/// <https://www.unicode.org/Public/16.0.0/ucd/extracted/DerivedGeneralCategory.txt>
const UNPRINTABLE: [(u32, u32); 21] = [
    (0x80, 0x9f),
    (0xad, 0xad),
    (0x600, 0x605),
    (0x61c, 0x61c),
    (0x6dd, 0x6dd),
    (0x70f, 0x70f),
    (0x890, 0x891),
    (0x8e2, 0x8e2),
    (0x180e, 0x180e),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f), // 2065 is unassigned, and ignored like its neighbours
    (0xfeff, 0xfeff),
    (0xfff9, 0xfffb),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0001, 0xe0001),
    (0xe0020, 0xe007f),
];

/// Whether a terminal shows `c` as a character of its own and does nothing else
/// with it.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    let c = u32::from(c);
    !UNPRINTABLE
        .iter()
        .any(|&(first, last)| (first..=last).contains(&c))
}

/// Makes bytes safe to print; see the [module](self) for the rules.
///
/// Borrows its input when there is nothing to escape.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(is_plain) => Cow::Borrowed(text),
        Ok(text) if text.chars().all(|c| c != '\\' && is_printable(c)) => Cow::Borrowed(text),
        _ => Cow::Owned(rewrite(bytes)),
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\\'
}

fn rewrite(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push(&mut out, c);
        }
        for &byte in chunk.invalid() {
            push_byte(&mut out, byte);
        }
    }
    out
}

fn push(out: &mut String, c: char) {
    if c == '\\' {
        out.push_str("\\\\");
    } else if is_printable(c) {
        out.push(c);
    } else if let Ok(byte) = u8::try_from(c)
        && byte.is_ascii()
    {
        push_byte(out, byte);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
    }
}

fn push_byte(out: &mut String, byte: u8) {
    let _ = write!(out, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(b"/usr/bin/curl", "/usr/bin/curl")]
    #[case("grün/日本".as_bytes(), "grün/日本")]
    #[case(b"a\\b", "a\\\\b")]
    #[case(b"a\nb\x1b[31m\x7f", "a\\x0ab\\x1b[31m\\x7f")]
    #[case(b"\xff\xc3(", "\\xff\\xc3(")]
    #[case("\u{85}\u{9b}31m".as_bytes(), "\\u{85}\\u{9b}31m")]
    #[case("a\u{202e}txt.exe".as_bytes(), "a\\u{202e}txt.exe")]
    #[case("\u{2028}\u{2029}\u{feff}\u{e0041}".as_bytes(), "\\u{2028}\\u{2029}\\u{feff}\\u{e0041}")]
    #[case(b"\xed\xa0\x80", "\\xed\\xa0\\x80")] // a surrogate is not UTF-8
    #[case(b"", "")]
    fn escapes(#[case] bytes: &[u8], #[case] text: &str) {
        assert_eq!(escape(bytes), text);
    }

    #[test]
    fn clean_input_is_borrowed() {
        for clean in ["/usr/bin/curl", "grün"] {
            assert!(matches!(escape(clean.as_bytes()), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(UNPRINTABLE.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }

    /// Undoes [`escape`]: that this exists proves that outputs are distinct.
    fn unescape(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if c != '\\' {
                out.extend(c.to_string().bytes());
            } else if let Some(after) = rest.strip_prefix('\\') {
                out.push(b'\\');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('x') {
                out.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
                rest = &after[2..];
            } else {
                let (hex, after) = rest.strip_prefix("u{")?.split_once('}')?;
                let c = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
                out.extend(c.to_string().bytes());
                rest = after;
            }
        }
        Some(out)
    }

    /// Bytes rich in what has to be escaped.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            (0x2000_u32..0x2070)
                .prop_filter_map("a character", char::from_u32)
                .prop_map(|c| c.to_string().into_bytes()),
            "[\\\\xu{}0-9a-f]{0,6}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn output_is_printable_and_says_which_bytes_there_were(bytes in hostile()) {
            let text = escape(&bytes);
            prop_assert!(text.chars().all(|c| is_printable(c) && !c.is_control()));
            prop_assert_eq!(unescape(&text), Some(bytes.clone()));
        }
    }
}
