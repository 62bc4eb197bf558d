//! Atomic changes of map values: the standard library has none for this target,
//! the compiler and the kernel (5.12+) do.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

const ORDER: AtomicOrdering = AtomicOrdering::Relaxed;

/// Adds to a counter.
///
/// # Safety
///
/// `to` must be aligned and in a map value.
#[inline(always)]
pub(crate) unsafe fn add(to: *mut u64, value: u64) {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, ORDER>(to, value) };
}

/// The next number of a counter: no two callers get the same. (An addition
/// that returns what was there is not to be had for this target.)
///
/// # Safety
///
/// As of [`add`].
#[inline(always)]
pub(crate) unsafe fn next(of: *mut u64) -> u64 {
    const TRIES: u32 = 8;
    let mut next = 1;
    for _ in 0..TRIES {
        // SAFETY: the caller's.
        let was = unsafe { core::ptr::read_volatile(of) };
        next = was + 1;
        // SAFETY: the caller's.
        if unsafe { exchange_if(of, was, next) } == was {
            break;
        }
    }
    next
}

/// Puts `new` where `expected` is, and returns what was there.
///
/// # Safety
///
/// As of [`add`].
#[inline(always)]
pub(crate) unsafe fn exchange_if(at: *mut u64, expected: u64, new: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_cxchg::<u64, ORDER, ORDER>(at, expected, new).0 }
}
