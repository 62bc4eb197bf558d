//! A [`Query`] as URL parameters, so that `curl` can ask as the commands do.
//!
//! | parameter | value |
//! | --- | --- |
//! | `ip`, `port` | either end: address or CIDR, port |
//! | `src`, `sport`, `dst`, `dport` | the ends by side |
//! | `community_id`, `exe`, `sha256`, `container`, `verdict` | as the flags of `procid who` |
//! | `pid`, `user` | numbers |
//! | `since`, `until`, `at` | nanoseconds since the epoch |
//!
//! A parameter that is not listed is refused, never ignored.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::flow::{End, Query};

/// The parameters of `/v1/who`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
}

/// A parameter that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: '{value}' is not an IP address or a CIDR")]
pub struct BadAddress {
    name: &'static str,
    value: String,
}

/// An address, or a network in CIDR notation. A v4-mapped address is its IPv4.
pub fn address(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address.to_canonical()));
    }
    text.parse::<IpNet>().ok().map(|net| net.trunc())
}

impl TryFrom<Parameters> for Query {
    type Error = BadAddress;

    fn try_from(from: Parameters) -> Result<Self, BadAddress> {
        Ok(Self {
            either: end("ip", from.ip, from.port)?,
            source: end("src", from.src, from.sport)?,
            destination: end("dst", from.dst, from.dport)?,
            community_id: from.community_id,
            pid: from.pid,
            exe: from.exe,
            sha256: from.sha256,
            user: from.user,
            container: from.container,
            verdict: from.verdict,
            since: from.since,
            until: from.until,
            at: from.at,
        })
    }
}

impl From<&Query> for Parameters {
    fn from(query: &Query) -> Self {
        let ip = |end: &Option<End>| Some(end.as_ref()?.address?.to_string());
        let port = |end: &Option<End>| end.as_ref()?.port;
        Self {
            ip: ip(&query.either),
            port: port(&query.either),
            src: ip(&query.source),
            sport: port(&query.source),
            dst: ip(&query.destination),
            dport: port(&query.destination),
            community_id: query.community_id.clone(),
            pid: query.pid,
            exe: query.exe.clone(),
            sha256: query.sha256.clone(),
            user: query.user,
            container: query.container.clone(),
            verdict: query.verdict.clone(),
            since: query.since,
            until: query.until,
            at: query.at,
        }
    }
}

fn end(
    name: &'static str,
    ip: Option<String>,
    port: Option<u16>,
) -> Result<Option<End>, BadAddress> {
    let address = match ip {
        Some(value) => match address(&value) {
            Some(net) => Some(net),
            None => return Err(BadAddress { name, value }),
        },
        None => None,
    };
    Ok((address.is_some() || port.is_some()).then_some(End { address, port }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn an_end() -> impl Strategy<Value = Option<End>> {
        let net = prop_oneof![
            (any::<u32>(), 0_u8..=32).prop_map(|(a, len)| (IpAddr::from(a.to_be_bytes()), len)),
            (any::<u128>(), 0_u8..=128).prop_map(|(a, len)| (IpAddr::from(a.to_be_bytes()), len)),
        ]
        .prop_map(|(ip, len)| IpNet::new(ip, len).unwrap().trunc());
        (
            proptest::option::of(net),
            proptest::option::of(any::<u16>()),
        )
            .prop_map(|(address, port)| {
                (address.is_some() || port.is_some()).then_some(End { address, port })
            })
    }

    proptest! {
        #[test]
        fn a_query_survives_the_url(
            either in an_end(),
            source in an_end(),
            destination in an_end(),
            pid in any::<Option<u32>>(),
            exe in any::<Option<String>>(),
            at in any::<Option<i64>>(),
        ) {
            let query = Query {
                either, source, destination, pid, exe, at,
                ..Query::default()
            };
            let url = serde_urlencoded::to_string(Parameters::from(&query)).unwrap();
            let back: Parameters = serde_urlencoded::from_str(&url).unwrap();
            prop_assert_eq!(Query::try_from(back).unwrap(), query);
        }
    }

    #[test]
    fn a_bad_address_is_named() {
        let bad = Parameters {
            dst: Some("10.0.0.300".to_owned()),
            ..Parameters::default()
        };
        assert_eq!(
            Query::try_from(bad).unwrap_err().to_string(),
            "dst: '10.0.0.300' is not an IP address or a CIDR"
        );
        assert!(serde_urlencoded::from_str::<Parameters>("dprt=443").is_err());
    }

    #[test]
    fn a_mapped_address_is_its_ipv4() {
        assert_eq!(address("::ffff:10.0.0.1"), "10.0.0.1/32".parse().ok());
    }
}
