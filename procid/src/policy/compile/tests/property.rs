//! Compiled tables decide as a plain reading of the rules does.

use procid_common::policy::NO_RULE;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::{CLOCK, Fake, random};
use crate::policy::{compile::compile, reference::evaluate};

/// The other one takes most of the time where it is not optimized.
const RNG: RngAlgorithm = RngAlgorithm::XorShift;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        rng_algorithm: RNG,
        ..ProptestConfig::default()
    })]

    #[test]
    fn tables_decide_as_the_rules_do(
        policy in random::policy(),
        cases in prop::collection::vec(random::facts(), 100),
    ) {
        let tables = compile(&policy, &Fake, CLOCK).unwrap();
        let lookup = tables.lookup(CLOCK);
        for facts in cases {
            let found = lookup.decide(&facts, &Fake).unwrap();
            prop_assert_eq!(found, evaluate(&policy, &facts), "{:?}", facts);
        }
    }
}

#[test]
fn random_cases_are_not_all_alike() {
    let mut runner =
        TestRunner::new_with_rng(ProptestConfig::default(), TestRng::deterministic_rng(RNG));
    let cases = (
        random::policy(),
        prop::collection::vec(random::facts(), 100),
    );
    let (mut decided, mut late, mut unknown, mut audited) = (0, 0, 0, 0);
    for _ in 0..100 {
        let (policy, cases) = cases.new_tree(&mut runner).unwrap().current();
        for facts in cases {
            let decision = evaluate(&policy, &facts);
            decided += u32::from(decision.rule != NO_RULE);
            late += u32::from(decision.rule != NO_RULE && decision.rule > 5);
            unknown += u32::from(decision.unknown);
            audited += u32::from(decision.audit != NO_RULE);
        }
    }
    let counts = [decided, late, unknown, audited];
    assert!(
        counts.iter().all(|count| (300..9_000).contains(count)),
        "{counts:?}"
    );
}
