//! The rooms that need no kernel import neither aya nor `crate::kernel`.
//!
//! What parses, prints, joins and keeps history must build, be tested and be
//! read without the kernel. The check reads paths in the sources, `use` trees
//! included, and not comments or strings.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// The modules of `procid` that need no kernel.
const ROOMS: [&str; 12] = [
    "records",
    "flow",
    "decode",
    "identity",
    "connections",
    "conntrack",
    "policy",
    "snapshot",
    "gate",
    "history",
    "outputs",
    "names",
];

/// A path that leads from a room to the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    file: PathBuf,
    line: usize,
    path: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = (self.file.display(), self.line);
        write!(f, "{file}:{line}: `{}` in a kernel-free room", self.path)
    }
}

/// Checks every room under `src`, and returns how many files were read.
///
/// # Errors
///
/// When a room is missing, a file cannot be read, or there are violations,
/// which the error lists.
pub(crate) fn check(src: &Path) -> Result<usize> {
    let mut violations = Vec::new();
    let mut files = Vec::new();
    for room in ROOMS {
        let before = files.len();
        let file = src.join(room).with_extension("rs");
        if file.is_file() {
            files.push(file);
        }
        collect_sources(&src.join(room), &mut files)?;
        if files.len() == before {
            bail!("no room `{room}` in {}", src.display());
        }
    }
    for file in &files {
        let source = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        violations.extend(kernel_paths(&source).into_iter().map(|(line, path)| {
            let file = file.strip_prefix(src).unwrap_or(file).to_owned();
            Violation { file, line, path }
        }));
    }
    if !violations.is_empty() {
        let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    Ok(files.len())
}

/// The Rust files in `dir`, at any depth; none when there is no such directory.
fn collect_sources(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect_sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The paths in `source` that lead to aya or to `crate::kernel`, with their
/// lines.
fn kernel_paths(source: &str) -> Vec<(usize, String)> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        let paths = path_tree(&tokens, &mut at);
        if at == start {
            at += 1;
            continue;
        }
        // A lone word is a name of the room's own, unless it is imported.
        let imported = start > 0 && matches!(tokens[start - 1].text, "use" | "crate");
        for path in paths {
            if (path.len() > 1 || imported) && leads_to_kernel(&path) {
                found.push((tokens[start].line, path.join("::")));
            }
        }
    }
    found
}

/// Whether `path` starts at one of aya's crates or goes to procid's `kernel`.
fn leads_to_kernel(path: &[&str]) -> bool {
    let first = path.first().copied().unwrap_or_default();
    if first == "aya" || first.starts_with("aya_") {
        return true;
    }
    let up = path.iter().take_while(|part| **part == "super").count();
    match first {
        "crate" | "procid" => path.get(1) == Some(&"kernel"),
        "super" => path.get(up) == Some(&"kernel"),
        _ => false,
    }
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Reads a path, or a `use` tree, from `at` on, and returns the paths in it:
/// `a::{b, c::d}` is `a::b` and `a::c::d`. Leaves `at` where it was when there
/// is none.
fn path_tree<'a>(tokens: &[Token<'a>], at: &mut usize) -> Vec<Vec<&'a str>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut prefix = Vec::new();
    if text(*at) == "::" && is_word(text(*at + 1)) {
        *at += 1; // `::aya::maps`
    }
    while is_word(text(*at)) {
        prefix.push(text(*at));
        *at += 1;
        if text(*at) != "::" {
            return vec![prefix];
        }
        match text(*at + 1) {
            "{" => {
                *at += 2;
                return branches(tokens, at, &prefix);
            }
            word if is_word(word) => *at += 1,
            _ => {
                *at += 1; // a glob or a turbofish
                return vec![prefix];
            }
        }
    }
    Vec::new()
}

/// The inside of a `use` tree's braces, up to and with the closing one.
fn branches<'a>(tokens: &[Token<'a>], at: &mut usize, prefix: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut paths = Vec::new();
    while let Some(token) = tokens.get(*at) {
        if token.text == "}" {
            *at += 1;
            break;
        }
        let start = *at;
        for path in path_tree(tokens, at) {
            paths.push([prefix, &path].concat());
        }
        if *at == start {
            *at += 1;
        }
    }
    paths
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !matches!(text, "use" | "as" | "extern" | "pub" | "mod" | "fn" | "let")
}

/// Words, `::` and single characters; comments, strings and character literals
/// are left out.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let length = if word(first) {
                rest.find(|c| !word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                let text = &rest[..length];
                tokens.push(Token { text, line });
            }
            length
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// The length of the block comment that `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of the string, raw string or character literal that `text`
/// starts with, if it does. A lifetime is none.
fn literal(text: &str) -> Option<usize> {
    let unprefixed = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - unprefixed.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let body = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(prefix + 1 + hashes + 1 + length);
    }
    let quote = unprefixed
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\''))?;
    let mut chars = unprefixed[1..].char_indices();
    if quote == '\'' {
        let lifetime = chars.clone().next().is_some_and(|(_, c)| c != '\\')
            && chars.clone().nth(1).is_none_or(|(_, c)| c != '\'');
        if lifetime {
            return None;
        }
    }
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return Some(prefix + 1 + at + 1);
        }
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(usize, String)> {
        kernel_paths(source)
    }

    #[test]
    fn a_planted_violation_is_found_with_its_line() {
        for (planted, path) in [
            ("use aya::maps::RingBuf;", "aya::maps::RingBuf"),
            ("use aya;", "aya"),
            ("extern crate aya;", "aya"),
            ("use ::aya_obj::btf::Btf;", "aya_obj::btf::Btf"),
            ("use crate::kernel::Handle;", "crate::kernel::Handle"),
            ("use crate::{flow, kernel};", "crate::kernel"),
            (
                "use crate::{flow::{self, Flow}, kernel::{A, B}};",
                "crate::kernel::A",
            ),
            ("use super::super::kernel::*;", "super::super::kernel"),
            ("fn f(_: &aya::Ebpf) {}", "aya::Ebpf"),
            ("fn f() { crate::kernel::start() }", "crate::kernel::start"),
            ("fn f() { let _x = 'a'; aya::x(\"\") }", "aya::x"),
        ] {
            let source = format!("//! a room\nuse std::fs;\n{planted}\n");
            assert!(
                found(&source).contains(&(3, path.to_owned())),
                "{planted}: {:?}",
                found(&source)
            );
        }
    }

    #[test]
    fn what_only_looks_like_one_is_let_be() {
        for source in [
            "// use aya::maps; crate::kernel",
            "/* aya::x /* nested */ crate::kernel */ fn f() {}",
            r#"const S: &str = "aya::maps \" crate::kernel";"#,
            r##"const S: &str = r#"crate::kernel " aya::x"#;"##,
            "struct P { kernel: bool } fn f(p: P) -> bool { p.kernel }",
            "use crate::records::kernel_owner;",
            "use crate::records::kernel;",
            "fn f<'aya>(x: &'aya str) -> &'aya str { x }",
            "enum Owner { Kernel } use Owner::Kernel;",
            "fn kernel() {} fn f() { kernel() }",
        ] {
            assert_eq!(found(source), [], "{source}");
        }
    }

    #[test]
    fn this_workspace_keeps_to_it() {
        let src = crate::host::root().join("procid/src");
        assert!(check(&src).unwrap() >= ROOMS.len());
    }

    #[test]
    fn a_tree_with_a_violation_or_without_a_room_fails() {
        let src = std::env::temp_dir().join(format!("procid-rooms-{}", std::process::id()));
        for room in ROOMS {
            fs::create_dir_all(src.join(room)).unwrap();
            fs::write(src.join(room).join("mod.rs"), "use std::fs;\n").unwrap();
        }
        assert_eq!(check(&src).unwrap(), ROOMS.len());
        let planted = src.join("flow/mod.rs");
        fs::write(&planted, "use std::fs;\nuse aya::Btf;\n").unwrap();
        let error = check(&src).unwrap_err().to_string();
        assert!(error.contains("flow/mod.rs:2: `aya::Btf`"), "{error}");
        fs::remove_file(&planted).unwrap();
        let error = check(&src).unwrap_err().to_string();
        assert!(error.contains("no room `flow`"), "{error}");
        fs::remove_dir_all(&src).unwrap();
    }
}
