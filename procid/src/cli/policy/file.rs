//! The text of a policy, from a file or stdin.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::cli::failure::Failure;

/// Bytes of a policy: hundreds of times what 1,024 rules need.
const MAX: u64 = 16 << 20;

/// Reads FILE; `-` is stdin. Returns its name in messages, and its text.
///
/// # Errors
///
/// Exit code 2: it cannot be read, is too large, or is no UTF-8.
pub(super) fn read(file: &Path) -> Result<(String, String), Failure> {
    if file == Path::new("-") {
        let name = "<stdin>".to_owned();
        return Ok((name.clone(), text(io::stdin().lock(), &name)?));
    }
    let name = file.display().to_string();
    let open = File::open(file).map_err(|error| unreadable(&name, &error))?;
    Ok((name.clone(), text(open, &name)?))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::usage(format!("{name}: {error}"))
}

fn text(source: impl Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    source
        .take(MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > MAX {
        return Err(Failure::usage(format!(
            "{name}: larger than {} MiB, which no policy is; name another file",
            MAX >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to());
        let line = before
            .unwrap_or_default()
            .split(|byte| *byte == b'\n')
            .count();
        Failure::usage(format!("{name}:{line}: not UTF-8; save the file as UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::Code;

    #[test]
    fn the_text_is_whole() {
        assert_eq!(text(&b"mode = 1\n"[..], "p").unwrap(), "mode = 1\n");
        assert_eq!(
            text(io::repeat(b' ').take(MAX), "p").unwrap().len() as u64,
            MAX
        );
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        let failure = text(&b"a\nb\xff"[..], "p").unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert_eq!(failure.message, "p:2: not UTF-8; save the file as UTF-8");
        let failure = text(io::repeat(b' '), "p").unwrap_err();
        assert!(failure.message.contains("larger than 16 MiB"));
    }
}
