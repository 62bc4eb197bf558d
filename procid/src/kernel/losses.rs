//! What the kernel side lost, by cause.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use procid_common::event::{Loss, Twice};

use super::{AttachError, take_map};

/// The programs' counters.
pub(super) struct Losses {
    counts: PerCpuArray<MapData, u64>,
    repeats: PerCpuArray<MapData, u64>,
}

impl Losses {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        Ok(Self {
            counts: take_map(ebpf, "LOSSES")?,
            repeats: take_map(ebpf, "REPEATS")?,
        })
    }

    /// Events lost so far, by cause.
    pub(super) fn so_far(&self, ebpf: &Ebpf) -> BTreeMap<&'static str, u64> {
        let mut losses: BTreeMap<_, _> = Loss::ALL
            .iter()
            .map(|&cause| (cause.name(), total(&self.counts, cause as u32)))
            .filter(|(_, lost)| *lost > 0)
            .collect();
        let skipped = self.skipped(ebpf);
        if skipped > 0 {
            losses.insert("program-skipped", skipped);
        }
        losses
    }

    /// Runs of programs that the kernel skipped, but for those that a second
    /// program made good.
    fn skipped(&self, ebpf: &Ebpf) -> u64 {
        let (mut alone, mut twice) = (0, [[0; 2]; Twice::ALL.len()]);
        for (name, program) in ebpf.programs() {
            let Some(missed) = program.fd().ok().and_then(|fd| misses(fd.as_fd())) else {
                continue;
            };
            let place = Twice::ALL.iter().find_map(|&hook| {
                let run = hook.programs().iter().position(|one| *one == name)?;
                Some((hook as usize, run))
            });
            match place {
                Some((hook, run)) => twice[hook][run] = missed,
                None => alone += missed,
            }
        }
        let repeats = Twice::ALL.map(|hook| total(&self.repeats, hook as u32));
        let both = twice.iter().zip(repeats);
        alone
            + both
                .map(|(missed, repeats)| lost(*missed, repeats))
                .sum::<u64>()
    }
}

/// Events that neither of two programs took, at most: each is missed by both,
/// and none that the second took for the first is among them. (The first is
/// also called, and may be missed, where there is nothing to tell.)
fn lost([first, second]: [u64; 2], repeats: u64) -> u64 {
    first.saturating_sub(repeats).min(second)
}

fn total(counts: &PerCpuArray<MapData, u64>, index: u32) -> u64 {
    counts.get(&index, 0).map_or(0, |counts| {
        counts.iter().copied().fold(0, u64::wrapping_add)
    })
}

/// How often the kernel skipped a program because it was already running on
/// that CPU; it says so in the descriptor's fdinfo (5.12+).
fn misses(program: BorrowedFd<'_>) -> Option<u64> {
    let fd = program.as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::lost;

    #[test]
    fn what_the_second_program_took_is_not_lost() {
        assert_eq!(lost([7, 0], 7), 0);
        assert_eq!(lost([7, 1], 7), 0);
        assert_eq!(lost([7, 1], 6), 1);
        // Threads whose end tells nothing.
        assert_eq!(lost([5, 0], 0), 0);
        assert_eq!(lost([0, 3], 0), 0);
        // Read while it goes on.
        assert_eq!(lost([6, 2], 7), 0);
    }
}
