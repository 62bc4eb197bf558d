//! Flags to a [`Query`].

use crate::{
    api::accounts,
    cli::failure::Failure,
    flow::{End, Query},
    time,
};

/// Which connections. Every part that is given must match.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Question {
    /// `:port`, `ip`, `ip:port`, `[v6]:port` (either end; a CIDR for an address
    /// is fine), two of them (`SRC DST`, as `ss` prints them), or a Community ID.
    #[arg(value_name = "FLOW", num_args = 0..=2)]
    flow: Vec<String>,
    /// Source address or CIDR.
    #[arg(long, value_name = "ADDRESS")]
    src: Option<End>,
    /// Destination address or CIDR.
    #[arg(long, value_name = "ADDRESS")]
    dst: Option<End>,
    /// Source port.
    #[arg(long, value_name = "PORT")]
    sport: Option<u16>,
    /// Destination port.
    #[arg(long, value_name = "PORT")]
    dport: Option<u16>,
    /// Thread group id in the initial pid namespace.
    #[arg(long)]
    pid: Option<u32>,
    /// Executable: a path, or a base name without a slash.
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,
    /// SHA-256 of the executable, or the start of it.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,
    /// Effective user at the time: number, or a name of /etc/passwd.
    #[arg(long)]
    user: Option<String>,
    /// Container id, or the start of it.
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// What a DNS answer called the destination, or a name above that:
    /// example.org finds www.example.org.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    #[arg(long, value_parser = ["allow", "deny", "audit"])]
    verdict: Option<String>,
    /// Open at this time or later: times as journalctl takes them, such as
    /// "2026-11-22 15:04", "1h ago", -5min, today.
    #[arg(long, value_name = "TIME", value_parser = time::moment, allow_hyphen_values = true)]
    since: Option<i64>,
    /// Open at this time or earlier.
    #[arg(long, value_name = "TIME", value_parser = time::moment, allow_hyphen_values = true)]
    until: Option<i64>,
    /// Open at this time.
    #[arg(long, value_name = "TIME", value_parser = time::moment, allow_hyphen_values = true)]
    at: Option<i64>,
}

impl Question {
    /// # Errors
    ///
    /// Exit code 2: words that are no FLOW, parts that contradict each other,
    /// a user that is not known.
    pub fn query(&self) -> Result<Query, Failure> {
        let flow = Query::from_words(&self.flow)
            .map_err(|error| Failure::usage(format!("FLOW: {error}")))?;
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            return Err(Failure::usage("--since is later than --until"));
        }
        let user = self.user.as_deref().map(user).transpose()?;
        Ok(Query {
            source: side(flow.source, self.src.as_ref(), self.sport, "src", "sport")?,
            destination: side(
                flow.destination,
                self.dst.as_ref(),
                self.dport,
                "dst",
                "dport",
            )?,
            either: flow.either,
            community_id: flow.community_id,
            pid: self.pid,
            exe: self.exe.clone(),
            sha256: self.sha256.clone(),
            user,
            container: self.container.clone(),
            domain: self.domain.clone(),
            verdict: self.verdict.clone(),
            since: self.since,
            until: self.until,
            at: self.at,
        })
    }
}

/// One end, said by FLOW or by its two flags.
fn side(
    flow: Option<End>,
    address: Option<&End>,
    port: Option<u16>,
    address_flag: &str,
    port_flag: &str,
) -> Result<Option<End>, Failure> {
    if flow.is_some() {
        return if address.is_none() && port.is_none() {
            Ok(flow)
        } else {
            Err(Failure::usage(format!(
                "FLOW names both ends already; leave out --{address_flag} and --{port_flag}"
            )))
        };
    }
    let mut end = match address {
        Some(end) => end.clone(),
        None if port.is_none() => return Ok(None),
        None => End::default(),
    };
    match (end.port, port) {
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "--{address_flag} has a port already; leave out --{port_flag}"
        ))),
        (None, _) => {
            end.port = port;
            Ok(Some(end))
        }
        (Some(_), None) => Ok(Some(end)),
    }
}

fn user(user: &str) -> Result<u32, Failure> {
    match accounts::user_id(user) {
        Ok(Some(uid)) => Ok(uid),
        Ok(None) => Err(Failure::usage(format!(
            "--user: /etc/passwd has no user '{user}'; give the number"
        ))),
        Err(error) => Err(Failure::usage(format!(
            "--user: cannot read /etc/passwd: {error}; give the number"
        ))),
    }
}

fn sha256(text: &str) -> Result<String, String> {
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    if hex && (1..=64).contains(&text.len()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("give 1 to 64 hexadecimal digits".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        question: Question,
    }

    fn query(words: &[&str]) -> Result<Query, Failure> {
        let words = std::iter::once(&"who").chain(words);
        Line::try_parse_from(words)
            .map_err(|error| Failure::usage(error.to_string()))?
            .question
            .query()
    }

    #[test]
    fn flags_and_flow_make_one_query() {
        let by_flags = query(&["--src", "10.0.0.5", "--dport", "443"]).unwrap();
        assert_eq!(by_flags, query(&["10.0.0.5", ":443"]).unwrap());
        let bare = query(&[":443", "--user", "root", "--sha256", "9F86"]).unwrap();
        assert_eq!(bare.either, ":443".parse().ok());
        assert_eq!(bare.user, Some(0));
        assert_eq!(bare.sha256.as_deref(), Some("9f86"));
        assert_eq!(query(&[]).unwrap(), Query::default());
    }

    #[test]
    fn relative_times_may_start_with_a_hyphen() {
        let query = query(&["--since", "-5min", "--until", "now"]).unwrap();
        assert!(query.since < query.until);
    }

    #[test]
    fn contradictions_are_refused() {
        for (words, sentence) in [
            (&["a.b.c"][..], "FLOW: `a.b.c` is not an address"),
            (&["1.1.1.1", ":53", "--dport", "53"], "leave out --dst"),
            (
                &["--dst", "1.1.1.1:53", "--dport", "53"],
                "leave out --dport",
            ),
            (
                &["--since", "now", "--until", "1h ago"],
                "later than --until",
            ),
            (&["--user", "no:such"], "no user 'no:such'"),
            (&["--sha256", "xyz"], "hexadecimal"),
        ] {
            let failure = query(words).unwrap_err();
            assert!(failure.message.contains(sentence), "{failure:?}");
        }
    }
}
