//! Compiled tables decide as a plain reading of the rules does.

use procid_common::policy::{NO_RULE, RULES_MAX};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::{CLOCK, Fake, random};
use crate::policy::{Facts, Policy, compile::compile, reference::evaluate};

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
        agree(&policy, &cases)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 30,
        rng_algorithm: RNG,
        // Of so many rules hardly one would be left out.
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    })]

    #[test]
    fn tables_of_as_many_rules_as_there_can_be_do_too(
        policy in random::full_policy(),
        cases in prop::collection::vec(random::facts(), 100),
    ) {
        agree(&policy, &cases)?;
    }
}

fn agree(policy: &Policy, cases: &[Facts]) -> Result<(), TestCaseError> {
    let tables = compile(policy, &Fake, CLOCK).unwrap();
    let lookup = tables.lookup(CLOCK);
    for facts in cases {
        let found = lookup.decide(facts, &Fake).unwrap();
        prop_assert_eq!(found, evaluate(policy, facts), "{:?}", facts);
    }
    Ok(())
}

/// Of a full policy, the first rule decides, and the last, and none.
#[test]
fn rules_of_full_policies_all_decide() {
    let mut runner =
        TestRunner::new_with_rng(ProptestConfig::default(), TestRng::deterministic_rng(RNG));
    let cases = (
        random::full_policy(),
        prop::collection::vec(random::facts(), 100),
    );
    let mut decided = [0; 5];
    for _ in 0..20 {
        let (policy, cases) = cases.new_tree(&mut runner).unwrap().current();
        for facts in cases {
            let decision = evaluate(&policy, &facts);
            let quarter = RULES_MAX as u32 / 4;
            let part = (decision.rule / quarter).min(4);
            decided[part as usize] += 1;
        }
    }
    assert!(decided.iter().all(|count| *count > 50), "{decided:?}");
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
        counts.iter().all(|count| (200..9_000).contains(count)),
        "{counts:?}"
    );
}
