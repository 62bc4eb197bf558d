//! Ranges and networks as prefixes, and which rules each prefix satisfies.

use std::{iter, ops::RangeInclusive};

use ipnet::IpNet;
use procid_common::policy::Bits;

use crate::policy::bits::insert;

/// IPv4 inside IPv6: `::ffff:0:0/96`.
const MAPPED: Prefix = Prefix {
    value: 0xffff << 32,
    len: 96,
};

/// The leading bits of a value. An outer one orders before those inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// The value's first bit is the highest one; those that do not count are 0.
    pub(super) value: u128,
    /// Bits that count.
    pub(super) len: u32,
}

impl Prefix {
    fn contains(self, other: Self) -> bool {
        self.len <= other.len && first(other.value, self.len) == self.value
    }
}

/// The first bits of a value, the others 0.
pub(in crate::policy) fn first(value: u128, len: u32) -> u128 {
    value & !u128::MAX.checked_shr(len).unwrap_or(0)
}

/// A value of `width` bits with its first bit as the highest one.
pub(in crate::policy) fn aligned(value: u32, width: u32) -> u128 {
    u128::from(value) << (128 - width)
}

/// What rules ask of one dimension.
#[derive(Debug, Default)]
pub(super) struct Asked(Vec<(Prefix, Option<usize>)>);

impl Asked {
    /// The fewest prefixes that make up a range of values of `width` bits.
    pub(super) fn range(&mut self, rule: usize, range: &RangeInclusive<u32>, width: u32) {
        let cover = cover(u64::from(*range.start()), u64::from(*range.end()), width);
        self.0.extend(cover.map(|prefix| (prefix, Some(rule))));
    }

    /// IPv4 is IPv6 in `::ffff:0:0/96`, where a wider network of IPv6 ends.
    pub(super) fn network(&mut self, rule: usize, network: &IpNet) {
        let (address, len) = match network {
            IpNet::V4(network) => (
                network.network().to_ipv6_mapped(),
                u32::from(network.prefix_len()) + MAPPED.len,
            ),
            IpNet::V6(network) => (network.network(), u32::from(network.prefix_len())),
        };
        let prefix = Prefix {
            value: address.to_bits(),
            len,
        };
        self.0.push((prefix, Some(rule)));
        if prefix.len < MAPPED.len && prefix.contains(MAPPED) {
            self.0.push((MAPPED, None));
        }
    }

    /// One entry for each prefix: with the rules that ask for it or for one
    /// around it, and those that do not ask.
    pub(super) fn entries(mut self, unasked: &Bits) -> Vec<(Prefix, Bits)> {
        self.0.sort_unstable();
        let mut entries: Vec<(Prefix, Bits)> = Vec::new();
        // The entries that contain each other and the one before.
        let mut around: Vec<usize> = Vec::new();
        for same in self.0.chunk_by(|one, other| one.0 == other.0) {
            let (prefix, rule) = same[0];
            while around
                .pop_if(|outer| !entries[*outer].0.contains(prefix))
                .is_some()
            {}
            // `None`, which orders first: what is around does not hold inside.
            let outer = around.last().filter(|_| rule.is_some());
            let mut bits = outer.map_or(*unasked, |outer| entries[*outer].1);
            for rule in same.iter().filter_map(|(_, rule)| *rule) {
                insert(&mut bits, rule);
            }
            around.push(entries.len());
            entries.push((prefix, bits));
        }
        entries
    }
}

/// The fewest prefixes that make up a range of values of `width` bits.
fn cover(start: u64, end: u64, width: u32) -> impl Iterator<Item = Prefix> {
    let mut start = start;
    iter::from_fn(move || {
        if start > end {
            return None;
        }
        // The largest block that begins here and does not go too far.
        let fits = (end - start + 1).ilog2();
        let free = start.trailing_zeros().min(fits).min(width);
        let prefix = Prefix {
            value: u128::from(start) << (128 - width),
            len: width - free,
        };
        start += 1 << free;
        Some(prefix)
    })
}

#[cfg(test)]
mod tests {
    use procid_common::policy::NO_RULES;
    use proptest::prelude::*;

    use super::*;

    fn bits(rules: &[usize]) -> Bits {
        let mut bits = NO_RULES;
        for rule in rules {
            insert(&mut bits, *rule);
        }
        bits
    }

    /// What the longest prefix that contains the value has.
    fn longest(entries: &[(Prefix, Bits)], value: u128) -> Option<Bits> {
        let value = Prefix { value, len: 128 };
        let containing = entries.iter().filter(|(prefix, _)| prefix.contains(value));
        containing
            .max_by_key(|(prefix, _)| prefix.len)
            .map(|(_, bits)| *bits)
    }

    #[rstest::rstest]
    #[case::all(0, 65_535, &[(0, 0)])]
    #[case::one(443, 443, &[(443, 16)])]
    #[case::block(8_000, 8_063, &[(8_000, 10)])]
    #[case::uneven(1_000, 1_007, &[(1_000, 13)])]
    #[case::unprivileged(1_024, 65_535, &[
        (1_024, 6), (2_048, 5), (4_096, 4), (8_192, 3), (16_384, 2), (32_768, 1),
    ])]
    #[case::backwards(2, 1, &[])]
    fn a_range_becomes_prefixes(
        #[case] start: u64,
        #[case] end: u64,
        #[case] expected: &[(u32, u32)],
    ) {
        let cover: Vec<_> = cover(start, end, 16)
            .map(|prefix| ((prefix.value >> 112) as u32, prefix.len))
            .collect();
        assert_eq!(cover, expected);
    }

    #[test]
    fn the_whole_of_32_bits_is_one_prefix() {
        let cover: Vec<_> = cover(0, u64::from(u32::MAX), 32).collect();
        assert_eq!(cover, [Prefix { value: 0, len: 0 }]);
    }

    #[test]
    fn a_prefix_has_the_rules_of_those_around_it() {
        let mut asked = Asked::default();
        for (rule, network) in ["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16", "10.2.0.0/16"]
            .iter()
            .enumerate()
        {
            asked.network(rule, &network.parse().unwrap());
        }
        let entries = asked.entries(&bits(&[9]));
        let lens: Vec<_> = entries.iter().map(|(prefix, _)| prefix.len).collect();
        assert_eq!(lens, [104, 112, 112]);
        assert_eq!(entries[0].1, bits(&[0, 9]));
        assert_eq!(entries[1].1, bits(&[0, 1, 2, 9]));
        assert_eq!(entries[2].1, bits(&[0, 3, 9]));
    }

    #[test]
    fn networks_of_ipv6_end_where_ipv4_begins() {
        let networks = [
            "::/0",
            "::/64",
            "10.0.0.0/8",
            "::ffff:0:0/95",
            "2001:db8::/32",
        ];
        let mut asked = Asked::default();
        for (rule, network) in networks.iter().enumerate() {
            asked.network(rule, &network.parse().unwrap());
        }
        let entries = asked.entries(&bits(&[9]));
        let at = |address: &str| {
            let address: std::net::Ipv6Addr = address.parse().unwrap();
            longest(&entries, address.to_bits()).unwrap()
        };
        assert_eq!(at("::ffff:10.1.2.3"), bits(&[2, 9]));
        assert_eq!(at("::ffff:11.1.2.3"), bits(&[9]));
        assert_eq!(at("::fffe:1.2.3.4"), bits(&[0, 1, 3, 9]));
        assert_eq!(at("::1"), bits(&[0, 1, 9]));
        assert_eq!(at("2001:db8::1"), bits(&[0, 4, 9]));
    }

    #[test]
    fn all_of_ipv4_is_not_ipv6() {
        let mut asked = Asked::default();
        asked.network(0, &"0.0.0.0/0".parse().unwrap());
        let entries = asked.entries(&NO_RULES);
        assert_eq!(entries, [(MAPPED, bits(&[0]))]);
    }

    proptest! {
        #[test]
        fn a_cover_holds_its_range_and_no_more(one: u16, other: u16, value: u16) {
            let (start, end) = (one.min(other), one.max(other));
            let cover: Vec<_> = cover(start.into(), end.into(), 16).collect();
            let value_ = Prefix { value: aligned(value.into(), 16), len: 16 };
            let times = cover.iter().filter(|prefix| prefix.contains(value_)).count();
            prop_assert_eq!(times, usize::from((start..=end).contains(&value)));
            // The fewest there can be: at most two of each length.
            prop_assert!(cover.len() <= 30);
        }

        #[test]
        fn the_longest_prefix_has_all_the_rules(
            ranges in prop::collection::vec((0_u32..256, 0_u32..256), 1..20),
            value in 0_u32..256,
        ) {
            let mut asked = Asked::default();
            for (rule, (start, end)) in ranges.iter().enumerate() {
                asked.range(rule, &(*start..=*end), 8);
            }
            let rules: Vec<_> = (0..ranges.len())
                .filter(|rule| (ranges[*rule].0..=ranges[*rule].1).contains(&value))
                .collect();
            let entries = asked.entries(&NO_RULES);
            let found = longest(&entries, aligned(value, 8)).unwrap_or(NO_RULES);
            prop_assert_eq!(found, bits(&rules));
        }
    }
}
