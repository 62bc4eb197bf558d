//! Words: one of a few, a name, and the nearest to one that is not known.

use toml::de::DeValue;

use super::diagnostic::Wrong;

/// Characters of the user's text that a message repeats.
const QUOTED_MAX: usize = 80;

/// The user's text in a message.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((at, _)) => format!("`{}…`", text.get(..at).unwrap_or_default()),
        None => format!("`{text}`"),
    }
}

/// The type of a value, with its article.
pub(super) fn a_kind(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if matches!(value, DeValue::Integer(_) | DeValue::Array(_)) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}

/// The candidate that was perhaps meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

pub(super) fn text<'t>(value: &'t DeValue<'_>) -> Result<&'t str, Wrong> {
    value
        .as_str()
        .ok_or_else(|| Wrong::kind("a string", value, "put it in quotation marks"))
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value
        .as_bool()
        .ok_or_else(|| Wrong::kind("true or false", value, "write true, or leave it out"))
}

/// One of a few words, each with what it means.
pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, Wrong> {
    let found = text(value)?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == found) {
        return Ok(*meaning);
    }
    let names = || words.iter().map(|(word, _)| *word);
    let help = match nearest(found, names()) {
        Some(near) => format!("write \"{near}\""),
        None => format!("write {}", either(names())),
    };
    Err(Wrong::new(
        format!("{} is not {}", quoted(found), either(names())),
        help,
    ))
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
fn either<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// A name that records, commands and people can use.
pub(super) fn name<'t>(value: &'t DeValue<'_>) -> Result<&'t str, Wrong> {
    let name = text(value)?;
    if name.trim().is_empty() {
        return Err(Wrong::new("is empty", "say what the rule is for"));
    }
    if name.chars().any(char::is_control) {
        return Err(Wrong::new(
            "holds a control character",
            "write it in one line of plain text",
        ));
    }
    Ok(name)
}
