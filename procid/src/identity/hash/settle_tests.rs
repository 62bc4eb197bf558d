use procid_common::image::{FileState, ImageId, flags};
use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;
const TICK: i64 = 4_000_000;
const RULES: Rules = Rules {
    tick_ns: TICK,
    write_denied: true,
};
/// The host was booted at this time of the wall clock.
const BOOT: Offset = Offset(1_000_000 * SECOND);
/// ctime of the file: 100 s after boot, not on a round number.
const CTIME: u64 = 100 * SECOND as u64 + 123_456_789;
/// The file is stable from here, on the boot clock.
const STABLE: u64 = CTIME + (TICK + MARGIN_NS) as u64;

fn request(exec_ns: u64, flags: u32) -> Request {
    let ctime = BOOT.to_real(CTIME);
    Request {
        id: ImageId {
            start_boottime: exec_ns,
            self_exec_id: 1,
            tgid: 1,
            reserved: 0,
        },
        file: FileState {
            ctime_sec: ctime / SECOND,
            ctime_nsec: u32::try_from(ctime % SECOND).expect("below a second"),
            ..FileState::default()
        },
        fs_magic: 0,
        flags,
        path: None,
        mntns: 0,
        exec_ns,
        snapshot: false,
    }
}

#[test]
fn an_exec_is_settled_from_the_stable_moment_on() {
    let cases = [
        (CTIME, Standing::IfAliveAt(STABLE)),
        (STABLE - 1, Standing::IfAliveAt(STABLE)),
        (STABLE, Standing::Settled),
        (STABLE + 3600 * SECOND as u64, Standing::Settled),
    ];
    for (exec_ns, standing) in cases {
        assert_eq!(
            RULES.judge(&request(exec_ns, 0), BOOT),
            standing,
            "{exec_ns}"
        );
    }
}

#[test]
fn a_queried_ctime_settles_an_exec_that_was_seen() {
    let mut request = request(CTIME, flags::CTIME_QUERIED);
    assert_eq!(RULES.judge(&request, BOOT), Standing::Settled);
    assert_eq!(RULES.read_from_ns(&request, BOOT), 0);
    // Of what ran before the look it says nothing.
    request.snapshot = true;
    assert_eq!(RULES.judge(&request, BOOT), Standing::IfAliveAt(STABLE));
}

#[test]
fn being_alive_proves_nothing_where_writes_are_not_denied() {
    let allowed = Rules {
        write_denied: false,
        ..RULES
    };
    assert_eq!(allowed.judge(&request(CTIME, 0), BOOT), Standing::Unsettled);
    assert_eq!(allowed.judge(&request(STABLE, 0), BOOT), Standing::Settled);
    let on_overlay = request(CTIME, flags::OVERLAY);
    assert_eq!(RULES.judge(&on_overlay, BOOT), Standing::Unsettled);
    let on_overlay = request(STABLE, flags::OVERLAY);
    assert_eq!(RULES.judge(&on_overlay, BOOT), Standing::Settled);
}

#[test]
fn a_found_image_is_judged_by_its_process_start() {
    let look = STABLE + SECOND as u64;
    let mut request = request(look, 0);
    request.snapshot = true;
    request.id.start_boottime = STABLE - 1;
    assert_eq!(RULES.judge(&request, BOOT), Standing::IfAliveAt(look));
    request.id.start_boottime = STABLE;
    assert_eq!(RULES.judge(&request, BOOT), Standing::Settled);
}

#[test]
fn round_ctimes_are_taken_for_coarse_ones() {
    let mut request = request(CTIME, 0);
    for (nsec, extra) in [(0, 2 * SECOND), (990_000_000, 2 * SECOND), (1, TICK)] {
        request.file.ctime_nsec = nsec;
        let ctime = request.file.ctime_sec * SECOND + i64::from(nsec);
        assert_eq!(RULES.stable_ns(&request.file), ctime + extra + MARGIN_NS);
    }
}

#[test]
fn absurd_ctimes_do_not_overflow() {
    for ctime_sec in [i64::MIN, i64::MAX] {
        let mut request = request(CTIME, 0);
        request.file.ctime_sec = ctime_sec;
        let standing = RULES.judge(&request, BOOT);
        if ctime_sec < 0 {
            assert_eq!(standing, Standing::Settled);
        } else {
            assert!(matches!(standing, Standing::IfAliveAt(at) if at > u64::MAX / 4));
        }
    }
}

#[test]
fn this_host_has_a_tick() {
    let rules = Rules::of_this_host();
    assert!(
        (100_000..=100_000_000).contains(&rules.tick_ns),
        "{rules:?}"
    );
}

#[test]
fn the_offset_joins_the_clocks() {
    let before = clock_gettime(ClockId::Realtime);
    let real = Offset::now().to_real(boot_now_ns());
    let after = clock_gettime(ClockId::Realtime);
    let slack = 1_000_000;
    assert!(real >= nanoseconds(before.tv_sec, before.tv_nsec) - slack);
    assert!(real <= nanoseconds(after.tv_sec, after.tv_nsec) + slack);
}

/// A host's history: writes to one file, on a clock that ticks.
fn ctime_of(write_ns: u64, lag_ns: u64) -> u64 {
    let seen = write_ns.saturating_sub(lag_ns);
    seen - seen % TICK as u64
}

proptest! {
    /// The proof itself: whenever the rules call an exec settled, a write after
    /// it has another ctime, whatever the phase and the (bounded) lag of the
    /// coarse clock.
    #[test]
    fn no_write_after_a_settled_exec_keeps_the_ctime(
        first in 1_000_000_000_u64..2_000_000_000,
        to_exec in 0_u64..30_000_000,
        to_write in 1_u64..30_000_000,
        lag in 0..MARGIN_NS as u64,
        lag_later in 0..MARGIN_NS as u64,
    ) {
        let exec_ns = first + to_exec;
        let write_ns = exec_ns + to_write;
        let ctime = ctime_of(first, lag);
        // The coarse clock never goes back.
        let rewritten = ctime_of(write_ns, lag_later).max(ctime);
        let mut request = request(exec_ns, 0);
        let real = BOOT.to_real(ctime);
        request.file.ctime_sec = real / SECOND;
        request.file.ctime_nsec = u32::try_from(real % SECOND).expect("below a second");
        match RULES.judge(&request, BOOT) {
            Standing::Settled => prop_assert!(rewritten > ctime),
            // The file is denied to writers while the image lives.
            Standing::IfAliveAt(at) => {
                prop_assert!(ctime_of(at.max(write_ns), lag_later) > ctime);
            }
            Standing::Unsettled => prop_assert!(false, "writes are denied here"),
        }
    }

    /// A smaller distance of the clocks never settles what a greater did not.
    #[test]
    fn the_lesser_offset_is_the_safe_one(
        exec_ns in CTIME..CTIME + 30_000_000,
        step in 0_i64..60 * SECOND,
    ) {
        let request = request(exec_ns, 0);
        let earlier = Offset(BOOT.0 - step);
        if RULES.judge(&request, earlier) == Standing::Settled {
            prop_assert_eq!(RULES.judge(&request, BOOT), Standing::Settled);
        }
    }
}
