//! Sets of rules.

use procid_common::policy::Bits;

pub(super) fn insert(bits: &mut Bits, rule: usize) {
    bits[rule / 64] |= 1 << (rule % 64);
}

pub(super) fn union(bits: &mut Bits, other: &Bits) {
    for (word, other) in bits.iter_mut().zip(other) {
        *word |= other;
    }
}

/// The rules that are in both.
pub(super) fn both(one: &Bits, other: &Bits) -> Bits {
    let mut bits = *one;
    for (word, other) in bits.iter_mut().zip(other) {
        *word &= other;
    }
    bits
}

/// The rules that are in either.
pub(super) fn either(one: &Bits, other: &Bits) -> Bits {
    let mut bits = *one;
    union(&mut bits, other);
    bits
}
