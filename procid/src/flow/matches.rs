//! A question against what is known of one connection.

use std::net::IpAddr;

use super::{End, Query};
use crate::names::Domain;

/// What is known of one connection, borrowed from whoever knows it; `None` is
/// "not known". Text is as records print it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    pub source_ip: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub destination_ip: Option<IpAddr>,
    pub destination_port: Option<u16>,
    /// The same ends on the other side of network address translation, where
    /// they differ: either names the connection.
    pub source_nat: Option<(IpAddr, u16)>,
    pub destination_nat: Option<(IpAddr, u16)>,
    /// Asked for only where [`Query::community_id`] is given.
    pub community_id: Option<&'a str>,
    pub pid: Option<u32>,
    /// `process.executable`.
    pub executable: Option<&'a str>,
    /// `process.name`.
    pub name: Option<&'a str>,
    /// Lower-case hexadecimal.
    pub sha256: Option<&'a str>,
    pub uid: Option<u32>,
    pub container: Option<&'a str>,
    pub domain: Option<&'a Domain>,
    pub verdict: Option<&'a str>,
    /// Since when it is known to have been open, nanoseconds since the epoch.
    pub start: Option<i64>,
    /// When it ended; `None`: it is open.
    pub end: Option<i64>,
}

impl Query {
    /// Whether a connection is an answer.
    ///
    /// What is asked and not known does not match: an answer is never a guess.
    /// `since` and `until` ask for connections that were open at some moment
    /// between the two, both included.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.matches_ends(facts)
            && self.matches_process(facts)
            && self.matches_times(facts)
            && same(self.community_id.as_deref(), facts.community_id)
            && same(self.verdict.as_deref(), facts.verdict)
            && self
                .domain
                .as_deref()
                .is_none_or(|asked| facts.domain.is_some_and(|domain| domain.is_within(asked)))
    }

    fn matches_ends(&self, facts: &Facts<'_>) -> bool {
        let translated = |end: &End, nat: Option<(IpAddr, u16)>| {
            nat.is_some_and(|(ip, port)| end.matches(Some(ip), Some(port)))
        };
        let source = |end: &End| {
            end.matches(facts.source_ip, facts.source_port) || translated(end, facts.source_nat)
        };
        let destination = |end: &End| {
            end.matches(facts.destination_ip, facts.destination_port)
                || translated(end, facts.destination_nat)
        };
        let either = |end: &End| source(end) || destination(end);
        self.either.as_ref().is_none_or(either)
            && self.source.as_ref().is_none_or(source)
            && self.destination.as_ref().is_none_or(destination)
    }

    fn matches_process(&self, facts: &Facts<'_>) -> bool {
        let exe = self.exe.as_deref();
        let known_as = match exe {
            Some(path) if path.contains('/') => facts.executable,
            _ => facts.name,
        };
        same(self.pid, facts.pid)
            && same(self.user, facts.uid)
            && same(exe, known_as)
            && has_prefix(self.sha256.as_deref(), facts.sha256)
            && has_prefix(self.container.as_deref(), facts.container)
    }

    fn matches_times(&self, facts: &Facts<'_>) -> bool {
        let open_by = |moment: i64| facts.start.is_some_and(|start| start <= moment);
        let not_over = |moment: i64| facts.end.is_none_or(|end| moment <= end);
        self.since.is_none_or(not_over)
            && self.until.is_none_or(open_by)
            && self.at.is_none_or(|at| open_by(at) && not_over(at))
    }
}

impl End {
    /// Whether an address and port lie in this end; a v4-mapped address is
    /// taken as IPv4.
    pub fn matches(&self, ip: Option<IpAddr>, port: Option<u16>) -> bool {
        let address = self
            .address
            .is_none_or(|net| ip.is_some_and(|ip| net.contains(&ip.to_canonical())));
        address && same(self.port, port)
    }
}

fn same<T: PartialEq + Copy>(asked: Option<T>, known: Option<T>) -> bool {
    asked.is_none() || asked == known
}

/// Whether a known identifier in hexadecimal starts with the one asked for.
fn has_prefix(asked: Option<&str>, known: Option<&str>) -> bool {
    asked.is_none_or(|asked| {
        known
            .and_then(|known| known.get(..asked.len()))
            .is_some_and(|start| start.eq_ignore_ascii_case(asked))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SHA256: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn facts() -> Facts<'static> {
        Facts {
            source_ip: "10.0.0.5".parse().ok(),
            source_port: Some(45384),
            destination_ip: "203.0.113.7".parse().ok(),
            destination_port: Some(443),
            source_nat: None,
            destination_nat: None,
            community_id: Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            pid: Some(5580),
            executable: Some("/usr/bin/curl"),
            name: Some("curl"),
            sha256: Some(SHA256),
            uid: Some(1000),
            container: Some("0123456789abcdef"),
            domain: None,
            verdict: Some("allow"),
            start: Some(100),
            end: Some(200),
        }
    }

    fn query(change: impl FnOnce(&mut Query)) -> Query {
        let mut query = Query::default();
        change(&mut query);
        query
    }

    #[rstest]
    #[case(":443", true)]
    #[case(":45384", true)]
    #[case(":80", false)]
    #[case("203.0.113.7", true)]
    #[case("203.0.113.0/24:443", true)]
    #[case("10.0.0.5:443", false)] // the address of one end, the port of the other
    #[case("::ffff:203.0.113.7", true)]
    #[case("10.0.0.5 203.0.113.7", true)]
    #[case("203.0.113.7 10.0.0.5", false)]
    #[case("* :443", true)]
    #[case("0.0.0.0/0", true)]
    #[case("::/0", false)]
    #[case("1:LQU9qZlK+B5F3KDmev6m5PMibrg=", true)]
    #[case("1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=", false)]
    fn flows(#[case] flow: &str, #[case] expected: bool) {
        let words: Vec<_> = flow.split(' ').map(str::to_owned).collect();
        let query = Query::from_words(&words).unwrap();
        assert_eq!(query.matches(&facts()), expected);
    }

    #[rstest]
    #[case("192.0.2.1:61000", true)]
    #[case(":61000", true)]
    #[case("192.0.2.7:6443", true)]
    #[case("192.0.2.1:45384", false)] // the address of one face, the port of the other
    #[case("192.0.2.1 192.0.2.7", true)]
    #[case("192.0.2.1 203.0.113.7", true)] // one end as the socket has it
    #[case("192.0.2.7 192.0.2.1", false)]
    #[case("10.0.0.5:45384 203.0.113.7:443", true)]
    fn translated_ends(#[case] flow: &str, #[case] expected: bool) {
        let end = |ip: &str, port: u16| Some((ip.parse().unwrap(), port));
        let facts = Facts {
            source_nat: end("192.0.2.1", 61000),
            destination_nat: end("192.0.2.7", 6443),
            ..facts()
        };
        let words: Vec<_> = flow.split(' ').map(str::to_owned).collect();
        let query = Query::from_words(&words).unwrap();
        assert_eq!(query.matches(&facts), expected);
    }

    #[test]
    fn a_v4_mapped_fact_is_ipv4() {
        let mapped = Facts {
            destination_ip: "::ffff:203.0.113.7".parse().ok(),
            ..facts()
        };
        let query = Query::from_words(&["203.0.113.0/24".to_owned()]).unwrap();
        assert!(query.matches(&mapped));
    }

    #[rstest]
    #[case(query(|_| ()), true)]
    #[case(query(|q| q.pid = Some(5580)), true)]
    #[case(query(|q| q.pid = Some(5581)), false)]
    #[case(query(|q| q.exe = Some("curl".into())), true)]
    #[case(query(|q| q.exe = Some("/usr/bin/curl".into())), true)]
    #[case(query(|q| q.exe = Some("/bin/curl".into())), false)]
    #[case(query(|q| q.exe = Some("url".into())), false)]
    #[case(query(|q| q.sha256 = Some("9f86".into())), true)]
    #[case(query(|q| q.sha256 = Some("9F86".into())), true)]
    #[case(query(|q| q.sha256 = Some(SHA256.into())), true)]
    #[case(query(|q| q.sha256 = Some(format!("{SHA256}0"))), false)]
    #[case(query(|q| q.sha256 = Some("86d0".into())), false)]
    #[case(query(|q| q.user = Some(1000)), true)]
    #[case(query(|q| q.user = Some(0)), false)]
    #[case(query(|q| q.container = Some("0123456789ab".into())), true)]
    #[case(query(|q| q.container = Some("ff".into())), false)]
    #[case(query(|q| q.verdict = Some("deny".into())), false)]
    #[case(query(|q| { q.pid = Some(5580); q.user = Some(0); }), false)]
    fn filters(#[case] query: Query, #[case] expected: bool) {
        assert_eq!(query.matches(&facts()), expected);
    }

    #[rstest]
    #[case(query(|q| q.at = Some(99)), false)]
    #[case(query(|q| q.at = Some(100)), true)]
    #[case(query(|q| q.at = Some(200)), true)]
    #[case(query(|q| q.at = Some(201)), false)]
    #[case(query(|q| q.since = Some(150)), true)]
    #[case(query(|q| q.since = Some(201)), false)]
    #[case(query(|q| q.until = Some(150)), true)]
    #[case(query(|q| q.until = Some(99)), false)]
    #[case(query(|q| { q.since = Some(120); q.until = Some(130); }), true)]
    fn times(#[case] query: Query, #[case] expected: bool) {
        assert_eq!(query.matches(&facts()), expected);
    }

    #[test]
    fn an_open_connection_has_no_end() {
        let open = Facts {
            end: None,
            ..facts()
        };
        assert!(query(|q| q.at = Some(i64::MAX)).matches(&open));
    }

    #[test]
    fn what_is_not_known_matches_no_question() {
        let nothing = Facts::default();
        assert!(Query::default().matches(&nothing));
        for asked in [
            query(|q| q.either = ":443".parse().ok()),
            query(|q| q.source = "0.0.0.0/0".parse().ok()),
            query(|q| q.pid = Some(1)),
            query(|q| q.exe = Some("curl".into())),
            query(|q| q.sha256 = Some("9f".into())),
            query(|q| q.user = Some(0)),
            query(|q| q.container = Some("01".into())),
            query(|q| q.verdict = Some("allow".into())),
            query(|q| q.community_id = Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".into())),
            query(|q| q.at = Some(0)),
            query(|q| q.until = Some(0)),
        ] {
            assert!(!asked.matches(&nothing), "{asked:?}");
        }
    }
}
