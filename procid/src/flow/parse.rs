//! FLOW as people write it.
//!
//! ```text
//! FLOW = COMMUNITY-ID | END [END]           two ends: SRC DST
//! END  = ADDR | [ADDR] ":" PORT             an IPv6 ADDR with a port in [ ]
//! ADDR = IP | CIDR | "*"
//! PORT = 0..65535 | "*"
//! ```
//!
//! `*` and the interface in `127.0.0.53%lo:53` are how `ss` prints "any" and a
//! bound device; the interface is read and left aside. An IPv4 address in IPv6
//! dress (`::ffff:10.0.0.5`) is that IPv4 address.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

use super::{End, Query, community_id::is_community_id};

/// Why words are not a FLOW.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    #[error(
        "`{0}` is not an address; write an IP, an IP:PORT, [IPv6]:PORT, :PORT, a CIDR or a \
         Community ID (names are not resolved)"
    )]
    Address(String),
    #[error("port `{0}` is not a number from 0 to 65535")]
    Port(String),
    #[error("`{0}` looks like a port; write it as :{0}")]
    BarePort(String),
    #[error("`{0}` has no closing bracket; write an IPv6 address with a port as [ADDRESS]:PORT")]
    Bracket(String),
    #[error("the Community ID `{0}` names both ends; give it alone")]
    CommunityIdAndEnd(String),
    #[error("`{0}` is one too many; a flow has at most two ends, SRC and DST")]
    TooMany(String),
    #[error("since is later than until")]
    Times,
}

impl Query {
    /// The query that the words of a FLOW ask; no words ask for everything.
    ///
    /// # Errors
    ///
    /// The word that is not part of a FLOW, and what to write instead.
    pub fn from_words(words: &[String]) -> Result<Self, FlowError> {
        if let [_, _, third, ..] = words {
            return Err(FlowError::TooMany(third.clone()));
        }
        match words {
            [id] if is_community_id(id) => Ok(Self {
                community_id: Some(id.clone()),
                ..Self::default()
            }),
            [end] => Ok(Self {
                either: Some(end.parse()?),
                ..Self::default()
            }),
            _ => {
                if let Some(id) = words.iter().find(|word| is_community_id(word)) {
                    return Err(FlowError::CommunityIdAndEnd(id.clone()));
                }
                let end = |at: usize| words.get(at).map(|word| word.parse()).transpose();
                Ok(Self {
                    source: end(0)?,
                    destination: end(1)?,
                    ..Self::default()
                })
            }
        }
    }
}

impl FromStr for End {
    type Err = FlowError;

    fn from_str(text: &str) -> Result<Self, FlowError> {
        let bad = || FlowError::Address(text.to_owned());
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest
                .split_once(']')
                .ok_or_else(|| FlowError::Bracket(text.to_owned()))?;
            let after = without_interface(after);
            let port = match after.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if after.is_empty() => None,
                None => return Err(bad()),
            };
            return Ok(Self {
                address: parse_address(inside).ok_or_else(bad)?,
                port,
            });
        }
        if let Some(address) = parse_address(text) {
            return Ok(Self {
                address,
                port: None,
            });
        }
        let Some((address, port)) = text.rsplit_once(':') else {
            return Err(if text.parse::<u16>().is_ok() {
                FlowError::BarePort(text.to_owned())
            } else {
                bad()
            });
        };
        // More colons than one are an IPv6 address that lacks its brackets.
        if address.contains(':') {
            return Err(bad());
        }
        let address = match address {
            "" => None,
            address => parse_address(address).ok_or_else(bad)?,
        };
        Ok(Self {
            address,
            port: parse_port(port)?,
        })
    }
}

/// Prints what [`End::from_str`] reads.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.port) {
            (None, None) => write!(f, "*"),
            (None, Some(port)) => write!(f, ":{port}"),
            (Some(net), None) => write!(f, "{}", Bare(net)),
            (Some(net @ IpNet::V4(_)), Some(port)) => write!(f, "{}:{port}", Bare(net)),
            (Some(net @ IpNet::V6(_)), Some(port)) => write!(f, "[{}]:{port}", Bare(net)),
        }
    }
}

/// A network, printed without its prefix length where it is one address.
struct Bare<'a>(&'a IpNet);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            write!(f, "{}", self.0.addr())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// `None`: not an address; `Some(None)`: any address.
fn parse_address(text: &str) -> Option<Option<IpNet>> {
    let text = without_interface(text);
    if text == "*" {
        return Some(None);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Some(IpNet::from(address.to_canonical())));
    }
    text.parse::<IpNet>().ok().map(|net| Some(canonical(net)))
}

/// A network of v4-mapped addresses, as the IPv4 network it is.
fn canonical(net: IpNet) -> IpNet {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.prefix_len().checked_sub(MAPPED_PREFIX).and_then(|len| {
        let address = Ipv6Addr::to_ipv4_mapped(&v6.addr())?;
        Ipv4Net::new(address, len).ok()
    });
    v4.map_or(net, IpNet::V4)
}

/// Cuts `%eth0` out of `10.0.0.1%eth0`.
fn without_interface(text: &str) -> &str {
    match text.split_once('%') {
        Some((address, interface)) if !interface.contains(':') => address,
        // `]%eth0:546`: the interface stands between the bracket and the port.
        Some(("", rest)) => rest.find(':').map_or("", |colon| &rest[colon..]),
        _ => text,
    }
}

fn parse_port(text: &str) -> Result<Option<u16>, FlowError> {
    match text {
        "*" => Ok(None),
        // `parse` alone would take a sign.
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse()
            .map(Some)
            .map_err(|_| FlowError::Port(text.to_owned())),
        _ => Err(FlowError::Port(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[rstest]
    #[case(":443", ":443")]
    #[case("*:443", ":443")]
    #[case("10.0.0.5", "10.0.0.5")]
    #[case("10.0.0.5:*", "10.0.0.5")]
    #[case("10.0.0.5:443", "10.0.0.5:443")]
    #[case("127.0.0.53%lo:53", "127.0.0.53:53")]
    #[case("10.0.0.0/8", "10.0.0.0/8")]
    #[case("10.0.0.0/8:443", "10.0.0.0/8:443")]
    #[case("fe80::1", "fe80::1")]
    #[case("fe80::1%eth0", "fe80::1")]
    #[case("[fe80::1]", "fe80::1")]
    #[case("[fe80::1]:546", "[fe80::1]:546")]
    #[case("[fe80::1]%eth0:546", "[fe80::1]:546")]
    #[case("[fe80::1%eth0]:546", "[fe80::1]:546")]
    #[case("[fd00::/8]:443", "[fd00::/8]:443")]
    #[case("fd00::/8", "fd00::/8")]
    #[case("::1", "::1")]
    #[case("1::2", "1::2")]
    #[case("[::ffff:10.0.0.5]:443", "10.0.0.5:443")]
    #[case("::ffff:10.0.0.0/104", "10.0.0.0/8")]
    #[case("*", "*")]
    #[case("*:*", "*")]
    #[case("[*]:443", ":443")]
    fn ends(#[case] text: &str, #[case] printed: &str) {
        assert_eq!(text.parse::<End>().unwrap().to_string(), printed);
    }

    #[rstest]
    #[case("443", FlowError::BarePort("443".into()))]
    #[case("example.org", FlowError::Address("example.org".into()))]
    #[case("example.org:443", FlowError::Address("example.org:443".into()))]
    #[case("10.0.0.5:https", FlowError::Port("https".into()))]
    #[case("10.0.0.5:65536", FlowError::Port("65536".into()))]
    #[case("10.0.0.5:+80", FlowError::Port("+80".into()))]
    #[case("10.0.0.5:", FlowError::Port(String::new()))]
    #[case(":", FlowError::Port(String::new()))]
    #[case("[fe80::1:443", FlowError::Bracket("[fe80::1:443".into()))]
    #[case("[fe80::1]443", FlowError::Address("[fe80::1]443".into()))]
    #[case("10.0.0.0/33", FlowError::Address("10.0.0.0/33".into()))]
    #[case("fe80::1:2:3:4:5:6:7:443:1", FlowError::Address("fe80::1:2:3:4:5:6:7:443:1".into()))]
    #[case("", FlowError::Address(String::new()))]
    fn bad_ends(#[case] text: &str, #[case] error: FlowError) {
        assert_eq!(text.parse::<End>(), Err(error));
    }

    #[test]
    fn one_word_is_either_end_and_two_are_source_and_destination() {
        let one = Query::from_words(&words(":443")).unwrap();
        assert_eq!(one.either, Some(":443".parse().unwrap()));
        assert_eq!((one.source, one.destination), (None, None));

        let two = Query::from_words(&words("10.0.0.5:45384 203.0.113.7:443")).unwrap();
        assert_eq!(two.either, None);
        assert_eq!(two.source, Some("10.0.0.5:45384".parse().unwrap()));
        assert_eq!(two.destination, Some("203.0.113.7:443".parse().unwrap()));

        assert_eq!(Query::from_words(&[]), Ok(Query::default()));
    }

    #[test]
    fn a_community_id_stands_alone() {
        let id = "1:LQU9qZlK+B5F3KDmev6m5PMibrg=";
        let query = Query::from_words(&words(id)).unwrap();
        assert_eq!(query.community_id.as_deref(), Some(id));
        assert_eq!(query.either, None);
        assert_eq!(
            Query::from_words(&words(&format!("{id} :443"))),
            Err(FlowError::CommunityIdAndEnd(id.into()))
        );
        assert_eq!(
            Query::from_words(&words(":1 :2 :3")),
            Err(FlowError::TooMany(":3".into()))
        );
    }

    fn any_end() -> impl Strategy<Value = End> {
        let v4 = (any::<std::net::Ipv4Addr>(), 0_u8..=32)
            .prop_map(|(ip, len)| IpNet::V4(Ipv4Net::new_assert(ip, len)));
        let v6 = (any::<Ipv6Addr>(), 0_u8..=128)
            .prop_map(|(ip, len)| canonical(IpNet::V6(ipnet::Ipv6Net::new_assert(ip, len))));
        let address = prop::option::of(prop_oneof![v4, v6]);
        (address, any::<Option<u16>>()).prop_map(|(address, port)| End { address, port })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(end in any_end()) {
            prop_assert_eq!(end.to_string().parse::<End>(), Ok(end));
        }

        #[test]
        fn never_panics(all: Vec<String>) {
            let _ = Query::from_words(&all);
        }

        #[test]
        fn never_panics_on_what_looks_like_an_end(text in "[\\[\\]:%*/.0-9a-fé]{0,16}") {
            let _ = text.parse::<End>();
        }
    }
}
