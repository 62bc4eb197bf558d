//! Which argument of an interpreter is the script it runs.
//!
//! A table of interpreters and of their options that take a value, and one
//! reading of a command line that serves them all. Where the code comes from
//! elsewhere (`-c`, `-m`, `-e`, standard input, a search in `PATH`), there is
//! no script. What is not in the table runs no script that procid names.

/// How an interpreter reads its options. Each letter is in one list at most;
/// one in none stands alone.
struct Interpreter {
    /// Base names, without a version.
    names: &'static [&'static str],
    /// Letters after which no script is run.
    no_script: &'static [u8],
    /// Letters with a value: the rest of the argument, or the next one.
    value: &'static [u8],
    /// Letters whose value is the next argument, whatever letters follow.
    next: &'static [u8],
    /// Letters that end a cluster: the rest of it, if any, is their value.
    rest: &'static [u8],
    /// Letters that digits may follow.
    number: &'static [u8],
    /// The letter whose value is the script.
    file: Option<u8>,
    /// Long options after which no script is run.
    long_no_script: &'static [&'static str],
    /// Long options whose value may be the next argument.
    long_value: &'static [&'static str],
    /// Options may start with `+`.
    plus: bool,
}

const PLAIN: Interpreter = Interpreter {
    names: &[],
    no_script: b"",
    value: b"",
    next: b"",
    rest: b"",
    number: b"",
    file: None,
    long_no_script: &[],
    long_value: &[],
    plus: false,
};

const SHELLS: &[&str] = &[
    "sh", "ash", "bash", "rbash", "dash", "ksh", "mksh", "yash", "zsh",
];

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: SHELLS,
        no_script: b"cs",
        next: b"oO",
        long_no_script: &["help", "version"],
        long_value: &["rcfile", "init-file", "emulate"],
        plus: true,
        ..PLAIN
    },
    Interpreter {
        names: &["fish"],
        no_script: b"c",
        value: b"CdoDf",
        long_no_script: &["command"],
        long_value: &["init-command", "debug", "debug-output", "features"],
        ..PLAIN
    },
    Interpreter {
        names: &["python", "pypy"],
        no_script: b"cmhV",
        value: b"WXQ",
        long_no_script: &["help", "version"],
        long_value: &["check-hash-based-pycs"],
        ..PLAIN
    },
    Interpreter {
        names: &["perl"],
        no_script: b"eESvV",
        value: b"I",
        rest: b"MmixdDCF",
        number: b"l0",
        ..PLAIN
    },
    Interpreter {
        names: &["ruby"],
        no_script: b"eSCxhX",
        value: b"IrE",
        rest: b"KiFTW",
        number: b"0",
        long_no_script: &["help", "version", "copyright"],
        long_value: &[
            "encoding",
            "external-encoding",
            "internal-encoding",
            "enable",
            "disable",
        ],
        ..PLAIN
    },
    Interpreter {
        names: &["node", "nodejs"],
        no_script: b"epivh",
        value: b"rC",
        long_no_script: &[
            "eval",
            "print",
            "interactive",
            "run",
            "help",
            "version",
            "v8-options",
        ],
        long_value: &[
            "require",
            "import",
            "loader",
            "experimental-loader",
            "conditions",
            "input-type",
            "env-file",
        ],
        ..PLAIN
    },
    Interpreter {
        names: &["php", "php-cli"],
        no_script: b"rBREShivm",
        value: b"dczt",
        file: Some(b'f'),
        long_no_script: &["run", "help", "version", "info", "modules", "server"],
        long_value: &["define", "php-ini", "zend-extension"],
        ..PLAIN
    },
    Interpreter {
        names: &["lua"],
        value: b"el",
        ..PLAIN
    },
    Interpreter {
        names: &["luajit"],
        no_script: b"b",
        value: b"elj",
        rest: b"O",
        ..PLAIN
    },
];

/// Whether programs of that path run scripts.
pub fn runs_scripts(executable: &[u8]) -> bool {
    let name = base_name(executable);
    name == b"busybox" || find(name).is_some()
}

/// The script that an interpreter was told to run, as it was told.
pub fn script_of<'a>(executable: &[u8], args: &'a [Vec<u8>]) -> Option<&'a [u8]> {
    let mut name = base_name(executable);
    let (own, mut args) = args.split_first()?;
    if name == b"busybox" {
        name = base_name(own);
        if name == b"busybox" {
            let (applet, rest) = args.split_first()?;
            name = applet;
            args = rest;
        }
    }
    find(name)?.script(args)
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// The interpreter of that name, its version left aside: `python3.13`.
fn find(name: &[u8]) -> Option<&'static Interpreter> {
    let is_version = |rest: &[u8]| {
        let rest = rest.strip_prefix(b"-").unwrap_or(rest);
        rest.iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'.')
    };
    INTERPRETERS.iter().find(|interpreter| {
        let mut names = interpreter.names.iter();
        names.any(|known| name.strip_prefix(known.as_bytes()).is_some_and(is_version))
    })
}

/// What an argument means for those after it.
enum Reading<'a> {
    /// An option that stands alone.
    Alone,
    /// Its value, or values, are that many next arguments.
    Values(usize),
    /// The script is the next argument.
    FileNext,
    File(&'a [u8]),
    NoScript,
}

impl Interpreter {
    fn script<'a>(&self, args: &'a [Vec<u8>]) -> Option<&'a [u8]> {
        let mut args = args.iter().map(Vec::as_slice);
        while let Some(arg) = args.next() {
            let reading = match arg {
                b"--" => return args.next().filter(|arg| !arg.is_empty()),
                // Standard input; to a shell, the end of its options.
                b"-" if self.plus => return args.next().filter(|arg| !arg.is_empty()),
                b"-" | b"" => return None,
                [b'-', b'-', long @ ..] => self.read_long(long),
                [b'-', letters @ ..] => self.read_letters(letters),
                [b'+', letters @ ..] if self.plus => self.read_letters(letters),
                script => return Some(script),
            };
            match reading {
                Reading::Alone => {}
                Reading::Values(count) => {
                    args.nth(count.checked_sub(1)?)?;
                }
                Reading::FileNext => return args.next().filter(|arg| !arg.is_empty()),
                Reading::File(script) => return Some(script),
                Reading::NoScript => return None,
            }
        }
        None
    }

    fn read_long(&self, option: &[u8]) -> Reading<'static> {
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let is_in = |list: &[&str]| list.iter().any(|known| known.as_bytes() == name);
        if is_in(self.long_no_script) {
            Reading::NoScript
        } else if parts.next().is_none() && is_in(self.long_value) {
            Reading::Values(1)
        } else {
            Reading::Alone
        }
    }

    fn read_letters<'a>(&self, mut letters: &'a [u8]) -> Reading<'a> {
        let mut values = 0;
        while let Some((letter, rest)) = letters.split_first() {
            letters = rest;
            if self.no_script.contains(letter) {
                return Reading::NoScript;
            } else if self.file == Some(*letter) {
                return if rest.is_empty() {
                    Reading::FileNext
                } else {
                    Reading::File(rest)
                };
            } else if self.next.contains(letter) {
                values += 1;
            } else if self.value.contains(letter) {
                if rest.is_empty() {
                    values += 1;
                }
                break;
            } else if self.rest.contains(letter) {
                break;
            } else if self.number.contains(letter) {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
                letters = &rest[digits.count()..];
            }
        }
        if values == 0 {
            Reading::Alone
        } else {
            Reading::Values(values)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn script(executable: &str, line: &str) -> Option<String> {
        let args: Vec<Vec<u8>> = line.split(' ').map(|arg| arg.as_bytes().to_vec()).collect();
        let script = script_of(executable.as_bytes(), &args)?;
        Some(String::from_utf8(script.to_vec()).expect("text"))
    }

    #[rstest]
    #[case("/usr/bin/bash", "bash x.sh -c y")]
    #[case("/usr/bin/bash", "bash -eo pipefail x.sh")]
    #[case("/usr/bin/bash", "bash -oe pipefail +x --rcfile rc --norc -- x.sh")]
    #[case("/usr/bin/bash", "-bash - x.sh")]
    #[case("/usr/bin/dash", "sh -ex x.sh")]
    #[case("/usr/bin/zsh-5.9", "zsh -f x.sh")]
    #[case("/usr/bin/ksh93", "ksh x.sh")]
    #[case("/usr/bin/fish", "fish --private -C true x.sh")]
    #[case("/bin/busybox", "sh x.sh")]
    #[case("/bin/busybox", "busybox ash -e x.sh")]
    #[case("/usr/bin/python3.13", "python3 -u -W ignore -Xdev x.sh -m y")]
    #[case("/usr/bin/python3.13", "python3 -uW ignore x.sh")]
    #[case("/usr/bin/pypy3", "pypy3 --check-hash-based-pycs always x.sh")]
    #[case("/usr/bin/perl", "perl -w -I lib -Mstrict -l012n x.sh")]
    #[case("/usr/bin/ruby3.3", "ruby -W2 -r json --enable frozen -Ilib x.sh")]
    #[case(
        "/usr/bin/node",
        "node --inspect -r dotenv --max-old-space-size=9 x.sh"
    )]
    #[case("/usr/bin/nodejs", "nodejs --import a.mjs --conditions=b x.sh -e")]
    #[case("/usr/bin/php8.4", "php -n -d a=b -dc=d x.sh")]
    #[case("/usr/bin/php8.4", "php -f x.sh -- y")]
    #[case("/usr/bin/php8.4", "php -qfx.sh y")]
    #[case("/usr/bin/lua5.4", "lua -e a=1 -lm -i x.sh")]
    #[case("/usr/bin/luajit", "luajit -O3 -j off x.sh")]
    fn a_script_is_found(#[case] executable: &str, #[case] line: &str) {
        assert_eq!(script(executable, line).as_deref(), Some("x.sh"));
    }

    #[rstest]
    #[case("/usr/bin/bash", "bash")]
    #[case("/usr/bin/bash", "bash -c x.sh")]
    #[case("/usr/bin/bash", "bash -euc x.sh")]
    #[case("/usr/bin/bash", "bash -s x.sh")]
    #[case("/usr/bin/bash", "bash -o pipefail")]
    #[case("/usr/bin/bash", "bash --rcfile x.sh")]
    #[case("/usr/bin/dash", "sh --")]
    #[case("/bin/busybox", "busybox wget x.sh")]
    #[case("/bin/busybox", "ls x.sh")]
    #[case("/usr/bin/python3.13", "python3 -m http.server")]
    #[case("/usr/bin/python3.13", "python3 -Ic x.sh")]
    #[case("/usr/bin/python3.13", "python3 - x.sh")]
    #[case("/usr/bin/perl", "perl -lane x.sh y")]
    #[case("/usr/bin/perl", "perl -S x.sh")]
    #[case("/usr/bin/ruby", "ruby -C / x.sh")]
    #[case("/usr/bin/node", "node --eval x.sh")]
    #[case("/usr/bin/php", "php -S localhost:1 x.sh")]
    #[case("/usr/bin/curl", "curl x.sh")]
    #[case("/usr/bin/bashful", "bash x.sh")]
    #[case("/usr/bin/pythonx", "python x.sh")]
    fn there_is_no_script(#[case] executable: &str, #[case] line: &str) {
        assert_eq!(script(executable, line), None);
    }

    #[test]
    fn no_arguments_at_all() {
        assert_eq!(script_of(b"/usr/bin/bash", &[]), None);
        assert_eq!(script_of(b"", &[Vec::new()]), None);
        assert_eq!(script("/usr/bin/bash", "bash  x.sh"), None, "an empty name");
    }

    #[test]
    fn no_letter_has_two_meanings() {
        for interpreter in INTERPRETERS {
            let lists = [
                interpreter.no_script,
                interpreter.value,
                interpreter.next,
                interpreter.rest,
                interpreter.number,
                interpreter.file.as_slice(),
            ];
            let mut letters = lists.concat();
            letters.sort_unstable();
            let count = letters.len();
            letters.dedup();
            assert_eq!(letters.len(), count, "{:?}", interpreter.names);
        }
    }

    proptest! {
        #[test]
        fn a_script_is_one_of_the_arguments(
            name in prop::sample::select(vec![
                "bash", "fish", "python3", "perl", "ruby", "node", "php", "lua", "busybox", "x",
            ]),
            args in prop::collection::vec(
                prop::collection::vec(
                    prop_oneof![Just(b'-'), Just(b'+'), Just(b'='), any::<u8>()],
                    0..6,
                ),
                0..6,
            ),
        ) {
            if let Some(script) = script_of(name.as_bytes(), &args) {
                prop_assert!(!script.is_empty());
                prop_assert!(args[1..].iter().any(|arg| arg.ends_with(script)));
            }
        }
    }
}
