//! The rate of the guest's time stamp counter.
//!
//! The guest's kernel measures it against an emulated timer, and when a busy
//! host disturbs that measurement it finds no clock and hangs before its first
//! line on the console: up to one boot in three. QEMU's TCG hands the guest
//! this host's own counter, so the host can measure in its place and say the
//! rate with `tsc_early_khz`.

use std::{
    thread,
    time::{Duration, Instant},
};

/// This host's time stamp counter's rate in kHz, right to about 0.01 %.
pub(super) fn khz() -> u128 {
    const SPAN: Duration = Duration::from_millis(100);
    let (start, first) = (Instant::now(), read());
    thread::sleep(SPAN);
    let (span, last) = (start.elapsed(), read());
    u128::from(last.wrapping_sub(first)) * 1_000_000 / span.as_nanos()
}

#[cfg(target_arch = "x86_64")]
fn read() -> u64 {
    // SAFETY: RDTSC reads a counter and changes nothing; every x86_64 has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Guests are not run on other hosts: see `unsupported`.
#[cfg(not(target_arch = "x86_64"))]
fn read() -> u64 {
    0
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::khz;

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (khz(), khz());
        assert!(one > 100_000, "{one} kHz");
        assert!(one.abs_diff(other) * 100 < one, "{one} and {other} kHz");
    }
}
