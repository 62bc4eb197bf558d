//! A [`Query`] as URL parameters, so that `curl` can ask as the commands do.
//!
//! | parameter | value |
//! | --- | --- |
//! | `either`, `src`, `dst` | one end of the flow: `ip`, `ip:port`, `[v6]:port`, `:port`; addresses may be CIDRs |
//! | `community_id`, `exe`, `sha256`, `container`, `domain`, `verdict` | as the flags of `procid who` |
//! | `pid`, `user` | numbers |
//! | `since`, `until`, `at` | nanoseconds since the epoch |
//!
//! A parameter that is not listed is refused, never ignored.

use serde::{Deserialize, Serialize};

use crate::flow::{End, FlowError, Query};

/// The parameters of `/v1/who`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub either: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<String>,
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
    pub domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
}

impl TryFrom<Parameters> for Query {
    type Error = FlowError;

    fn try_from(from: Parameters) -> Result<Self, FlowError> {
        let end = |text: Option<String>| text.map(|text| text.parse::<End>()).transpose();
        if from
            .since
            .zip(from.until)
            .is_some_and(|(since, until)| since > until)
        {
            return Err(FlowError::Times);
        }
        Ok(Self {
            either: end(from.either)?,
            source: end(from.src)?,
            destination: end(from.dst)?,
            community_id: from.community_id,
            pid: from.pid,
            exe: from.exe,
            sha256: from.sha256,
            user: from.user,
            container: from.container,
            domain: from.domain,
            verdict: from.verdict,
            since: from.since,
            until: from.until,
            at: from.at,
        })
    }
}

impl From<&Query> for Parameters {
    fn from(query: &Query) -> Self {
        let end = |end: &Option<End>| end.as_ref().map(End::to_string);
        Self {
            either: end(&query.either),
            src: end(&query.source),
            dst: end(&query.destination),
            community_id: query.community_id.clone(),
            pid: query.pid,
            exe: query.exe.clone(),
            sha256: query.sha256.clone(),
            user: query.user,
            container: query.container.clone(),
            domain: query.domain.clone(),
            verdict: query.verdict.clone(),
            since: query.since,
            until: query.until,
            at: query.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;

    fn an_end() -> impl Strategy<Value = Option<End>> {
        let v4 = (any::<Ipv4Addr>(), 0_u8..=32);
        // FLOW reads v4-mapped addresses as IPv4, so that no query holds one.
        let v6 = any::<Ipv6Addr>().prop_filter("mapped", |ip| ip.to_ipv4_mapped().is_none());
        let v6 = (v6, 0_u8..=128);
        let net = prop_oneof![
            v4.prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap()),
            v6.prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap()),
        ];
        let end = (proptest::option::of(net), any::<Option<u16>>())
            .prop_map(|(address, port)| End { address, port });
        proptest::option::of(end)
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
    fn a_time_that_ends_before_it_begins_is_refused() {
        let of = |text| Query::try_from(serde_urlencoded::from_str::<Parameters>(text).unwrap());
        assert!(of("since=5&until=5").is_ok());
        assert_eq!(of("since=6&until=5"), Err(FlowError::Times));
    }

    #[test]
    fn an_unknown_parameter_is_refused() {
        assert!(serde_urlencoded::from_str::<Parameters>("dst=:443").is_ok());
        assert!(serde_urlencoded::from_str::<Parameters>("dest=:443").is_err());
    }
}
