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

/// The bytes that [`escape`] has made that text of. What it does not make is
/// taken as it stands.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let length = match escaped(rest) {
            Some((Escaped::Byte(byte), length)) => {
                out.push(byte);
                length
            }
            Some((Escaped::Char(c), length)) => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                length
            }
            None => {
                out.push(b'\\');
                1
            }
        };
        rest = &rest[length..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

enum Escaped {
    Byte(u8),
    Char(char),
}

/// The escape that text begins with, and its length.
fn escaped(text: &str) -> Option<(Escaped, usize)> {
    let after = text.strip_prefix('\\')?;
    if after.starts_with('\\') {
        return Some((Escaped::Byte(b'\\'), 2));
    }
    if let Some(digits) = after.strip_prefix('x') {
        let byte = u8::from_str_radix(digits.get(..2)?, 16).ok()?;
        return Some((Escaped::Byte(byte), 4));
    }
    let digits = after.strip_prefix("u{")?;
    let end = digits.find('}')?;
    let number = u32::from_str_radix(&digits[..end], 16).ok()?;
    Some((Escaped::Char(char::from_u32(number)?), "\\u{}".len() + end))
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
            prop_assert_eq!(unescape(&text), bytes);
        }

        #[test]
        fn any_text_is_taken(text in "[\\\\xu{}0-9a-fé]{0,12}") {
            unescape(&text);
        }
    }
}
