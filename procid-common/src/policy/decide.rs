//! The decision: one loop, run by the programs and by `policy explain`.

use super::{Bits, Head, NO_RULE, WORDS, flags};

/// One decision.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub head: &'a Head,
    /// What no rule decides is denied: [`flags::DEFAULT_DENY`], but never of
    /// [`role::ACCEPTOR`](super::role::ACCEPTOR) and
    /// [`role::KERNEL`](super::role::KERNEL), which only rules judge.
    pub default_deny: bool,
    /// Rules in force at this time that the act satisfies in everything but
    /// the image, or that do not ask: the AND of what the tables say.
    pub around: &'a Bits,
    /// Rules that the image satisfies: certainly, and perhaps.
    pub yes: &'a Bits,
    pub maybe: &'a Bits,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub deny: bool,
    /// The index of the rule that decides, or that the missing fact is of;
    /// [`NO_RULE`]: the default.
    pub rule: u32,
    /// The first audit rule that matched before it; [`NO_RULE`]: none.
    pub audit: u32,
    /// It is the verdict of `unknown_hash`.
    pub unknown: bool,
}

/// Index of the lowest bit of a word that is not 0, without a branch: the
/// verifier would follow each of the 64 answers.
#[inline(always)]
const fn lowest(word: u64) -> u32 {
    (word & word.wrapping_neg()).wrapping_sub(1).count_ones()
}

/// What is known in the middle of a decision. It is kept in memory, read and
/// written as such, so that the verifier sees one unknown number in each field,
/// and not every combination of what they may have become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Progress {
    audit: u32,
    /// The first rules that perhaps match, by action.
    perhaps_allow: u32,
    perhaps_deny: u32,
    rule: u32,
    deny: u32,
    done: u32,
}

impl Progress {
    pub const START: Self = Self {
        audit: NO_RULE,
        perhaps_allow: NO_RULE,
        perhaps_deny: NO_RULE,
        rule: NO_RULE,
        deny: 0,
        done: 0,
    };
}

#[inline(always)]
fn get<T: Copy>(from: &T) -> T {
    // SAFETY: a reference.
    unsafe { core::ptr::read_volatile(from) }
}

#[inline(always)]
fn put<T: Copy>(to: &mut T, value: T) {
    // SAFETY: a reference.
    unsafe { core::ptr::write_volatile(to, value) };
}

#[inline(always)]
fn put_first(to: &mut u32, base: u32, rules: u64) {
    if rules != 0 && get(to) == NO_RULE {
        put(to, base + lowest(rules));
    }
}

/// Decides.
///
/// The first allow or deny that certainly matches decides, else the default.
/// If an earlier one perhaps matches and decides otherwise, `unknown_hash`
/// does.
#[inline(always)]
pub fn decide(case: &Case<'_>, progress: &mut Progress) -> Decision {
    let head = case.head;
    put(progress, Progress::START);
    put(&mut progress.deny, u32::from(case.default_deny));
    let mut index = 0;
    while index < WORDS {
        let maybe = case.around[index] & case.maybe[index];
        if maybe != 0 && get(&progress.done) == 0 {
            let base = index as u32 * 64;
            let yes = maybe & case.yes[index];
            let decides = yes & !head.audit[index];
            // Bits of rules before the one that decides; without one, of all.
            let first = decides & decides.wrapping_neg();
            let before = first.wrapping_sub(1);
            put_first(&mut progress.audit, base, yes & head.audit[index] & before);
            let perhaps = maybe & !yes & before;
            put_first(
                &mut progress.perhaps_allow,
                base,
                perhaps & head.allow[index],
            );
            put_first(&mut progress.perhaps_deny, base, perhaps & head.deny[index]);
            if decides != 0 {
                put(&mut progress.rule, base + lowest(decides));
                put(&mut progress.deny, u32::from(first & head.deny[index] != 0));
                put(&mut progress.done, 1);
            }
        }
        index += 1;
    }
    let deny = get(&progress.deny) != 0;
    let other = if deny {
        get(&progress.perhaps_allow)
    } else {
        get(&progress.perhaps_deny)
    };
    let audit = get(&progress.audit);
    if other != NO_RULE {
        return Decision {
            deny: head.flags & flags::UNKNOWN_DENY != 0,
            rule: other,
            audit,
            unknown: true,
        };
    }
    Decision {
        deny,
        rule: get(&progress.rule),
        audit,
        unknown: false,
    }
}

#[cfg(test)]
mod tests {
    use super::lowest;

    #[test]
    fn the_lowest_bit_is_found() {
        for bit in 0..64 {
            assert_eq!(lowest(1 << bit), bit);
            assert_eq!(lowest(u64::MAX << bit), bit);
        }
    }
}
