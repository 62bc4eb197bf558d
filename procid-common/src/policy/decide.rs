//! The decision: one loop, run by the programs and by `policy explain`.

use super::{Bits, Head, NO_RULE, WORDS, flags};

/// One decision: for each thing asked of, the rules that are satisfied or do
/// not ask.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub head: &'a Head,
    /// What no rule decides is denied: [`flags::DEFAULT_DENY`], but never of
    /// [`role::ACCEPTOR`](super::role::ACCEPTOR) and
    /// [`role::KERNEL`](super::role::KERNEL), which only rules judge.
    pub default_deny: bool,
    /// Rules in force at this time.
    pub live: &'a Bits,
    /// Of the image: certainly, and perhaps.
    pub yes: &'a Bits,
    pub maybe: &'a Bits,
    pub destination: &'a Bits,
    pub port: &'a Bits,
    pub source_port: &'a Bits,
    pub uid: &'a Bits,
    pub gid: &'a Bits,
    pub cgroup: &'a Bits,
    pub transport: &'a Bits,
    pub kind: &'a Bits,
    pub role: &'a Bits,
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

/// Index of the lowest bit of a word that is not 0. (The target has no
/// instruction for it, and the compiler's own way needs a table.)
#[inline(always)]
const fn lowest(word: u64) -> u32 {
    let bit = word & word.wrapping_neg();
    let mut index = 0;
    if bit & 0xffff_ffff_0000_0000 != 0 {
        index += 32;
    }
    if bit & 0xffff_0000_ffff_0000 != 0 {
        index += 16;
    }
    if bit & 0xff00_ff00_ff00_ff00 != 0 {
        index += 8;
    }
    if bit & 0xf0f0_f0f0_f0f0_f0f0 != 0 {
        index += 4;
    }
    if bit & 0xcccc_cccc_cccc_cccc != 0 {
        index += 2;
    }
    if bit & 0xaaaa_aaaa_aaaa_aaaa != 0 {
        index += 1;
    }
    index
}

/// Decides.
///
/// The first allow or deny that certainly matches decides, else the default.
/// If an earlier one perhaps matches and decides otherwise, `unknown_hash`
/// does.
#[inline(always)]
pub fn decide(case: &Case<'_>) -> Decision {
    let head = case.head;
    let mut audit = NO_RULE;
    // The first rules that perhaps match, by action.
    let mut perhaps_allow = NO_RULE;
    let mut perhaps_deny = NO_RULE;
    let mut rule = NO_RULE;
    let mut deny = case.default_deny;
    let words = head.words;
    for index in 0..WORDS {
        if index as u32 >= words {
            break;
        }
        let around = case.live[index]
            & case.destination[index]
            & case.port[index]
            & case.source_port[index]
            & case.uid[index]
            & case.gid[index]
            & case.cgroup[index]
            & case.transport[index]
            & case.kind[index]
            & case.role[index];
        let maybe = around & case.maybe[index];
        if maybe == 0 {
            continue;
        }
        let base = index as u32 * 64;
        let yes = maybe & case.yes[index];
        let decides = yes & !head.audit[index];
        // Bits of rules before the one that decides.
        let before = if decides == 0 {
            u64::MAX
        } else {
            (decides & decides.wrapping_neg()).wrapping_sub(1)
        };
        let audits = yes & head.audit[index] & before;
        if audit == NO_RULE && audits != 0 {
            audit = base + lowest(audits);
        }
        let allows = maybe & !yes & head.allow[index] & before;
        if perhaps_allow == NO_RULE && allows != 0 {
            perhaps_allow = base + lowest(allows);
        }
        let denies = maybe & !yes & head.deny[index] & before;
        if perhaps_deny == NO_RULE && denies != 0 {
            perhaps_deny = base + lowest(denies);
        }
        if decides != 0 {
            rule = base + lowest(decides);
            deny = decides & decides.wrapping_neg() & head.deny[index] != 0;
            break;
        }
    }
    let other = if deny { perhaps_allow } else { perhaps_deny };
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
        rule,
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
