//! The exec gate, on a file system of the test's own.

use std::{
    fs::{self, File, FileTimes},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use procid_tests::{
    gate::{Gate, line_of_file, on_own_file_system, program, run, start},
    scratch::test_program,
};
use rustix::process::{Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(1);
/// A limit that no test reaches.
const FOREVER: Duration = Duration::from_secs(20);
/// What is let go on at once takes less, and what waits for [`LIMIT`] more.
const AT_ONCE: Duration = Duration::from_millis(700);
const SETTLING: Duration = Duration::from_millis(50);

#[test]
fn a_program_never_seen_before_is_hashed_before_it_runs() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        for number in 0..200 {
            let path = program(place, &format!("app-{number}"));
            let mut child = start(&path);
            assert!(gate.said(&line_of_file(&path)), "{number} of 200");
            child.wait().unwrap();
        }
        assert_eq!(gate.count("events"), "200");
        assert_eq!(gate.count("hashed"), "200");
        assert_eq!(gate.count("unproven"), "0");
    });
}

#[test]
fn a_program_seen_before_is_not_read_again() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        let path = program(place, "app");
        for _ in 0..10 {
            run(&path);
        }
        assert_eq!(gate.count("hashed"), "1");
        assert_eq!(gate.count("cached"), "9");
    });
}

/// Size, inode and mtime stay: only the ctime tells.
#[test]
fn a_program_rewritten_in_place_is_hashed_again() {
    on_own_file_system(|place| {
        let gate = Gate::on(place, FOREVER);
        let path = program(place, "app");
        run(&path);
        let before = line_of_file(&path);
        assert!(gate.said(&before));
        let metadata = fs::metadata(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"ppa", metadata.len() - 3).unwrap();
        file.set_times(FileTimes::new().set_modified(metadata.modified().unwrap()))
            .unwrap();
        drop(file);
        run(&path);
        let after = line_of_file(&path);
        assert_ne!(before, after);
        assert!(gate.said(&after));
    });
}

/// A page that was written through a mapping before can be written again
/// without a new ctime.
#[test]
fn a_program_that_is_mapped_for_writing_gets_no_hash() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, Duration::from_millis(200));
        let path = program(place, "app");
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        // SAFETY: a mapping at a place of the kernel's choice.
        let mapping = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &file,
                0,
            )
        }
        .unwrap();
        drop(file);
        let write = |byte: u8| {
            // SAFETY: the mapping is as long as the file was, and alive.
            unsafe { mapping.cast::<u8>().add(len - 1).write_volatile(byte) };
        };
        write(b'1');
        thread::sleep(SETTLING);
        let old = line_of_file(&path);
        let refused = Command::new(&path).spawn().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ETXTBSY));
        assert_eq!(gate.count("unproven"), "1");
        write(b'2');
        let new = line_of_file(&path);
        // SAFETY: nothing refers to the mapping any more.
        unsafe { rustix::mm::munmap(mapping, len) }.unwrap();
        let state = |line: &str| line.rsplit_once(' ').unwrap().0.to_owned();
        assert_eq!(state(&old), state(&new), "the write left a trace");
        run(&path);
        assert!(!gate.said(&old), "a hash of what did not run");
        assert!(gate.said(&new));
    });
}

#[test]
fn a_stopped_agent_holds_nothing_up_for_longer_than_the_limit() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, LIMIT);
        gate.signal(Signal::STOP);
        let took: Vec<_> = (0..10)
            .map(|number| run(&program(place, &format!("stopped-{number}"))))
            .collect();
        let longest = took.iter().max().unwrap();
        assert!(*longest < LIMIT + Duration::from_secs(1), "{took:?}");
        // It is not waited for each time.
        assert!(took[5..].iter().all(|took| *took < AT_ONCE), "{took:?}");
        gate.signal(Signal::CONT);
        gate.count("events");
        thread::sleep(SETTLING);
        let path = program(place, "continued");
        run(&path);
        assert!(gate.said(&line_of_file(&path)));
        assert_eq!(gate.count("timed_out"), "4");
        assert_eq!(gate.count("passed"), "6");
    });
}

#[test]
fn a_killed_agent_holds_nothing_up() {
    on_own_file_system(|place| {
        let gate = Gate::on(place, FOREVER);
        gate.signal(Signal::STOP);
        let path = program(place, "waits");
        thread::scope(|scope| {
            let waits = scope.spawn(|| run(&path));
            thread::sleep(Duration::from_millis(300));
            assert!(!waits.is_finished(), "it did not wait");
            gate.signal(Signal::KILL);
            assert!(waits.join().unwrap() < Duration::from_millis(300) + AT_ONCE);
        });
        assert!(run(&program(place, "after")) < AT_ONCE);
    });
}

#[test]
fn a_killed_watchdog_holds_nothing_up_and_is_missed() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        assert_eq!(gate.count("open"), "true");
        let watchdog = gate.watchdog();
        gate.signal(Signal::STOP);
        let path = program(place, "waits");
        thread::scope(|scope| {
            let waits = scope.spawn(|| run(&path));
            thread::sleep(Duration::from_millis(300));
            assert!(!waits.is_finished(), "it did not wait");
            kill_process(watchdog, Signal::KILL).unwrap();
            assert!(waits.join().unwrap() < Duration::from_millis(300) + AT_ONCE);
        });
        gate.signal(Signal::CONT);
        assert!(run(&program(place, "after")) < AT_ONCE);
        let begun = Instant::now();
        while gate.count("open") == "true" {
            assert!(begun.elapsed() < FOREVER);
        }
    });
}

/// A service manager sends this to all that it started.
#[test]
fn the_watchdog_stays_as_long_as_the_agent() {
    on_own_file_system(|place| {
        let gate = Gate::on(place, FOREVER);
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            kill_process(gate.watchdog(), signal).unwrap();
        }
        thread::sleep(SETTLING);
        let path = program(place, "app");
        run(&path);
        assert!(gate.said(&line_of_file(&path)));
    });
}

#[test]
fn a_file_too_large_is_let_through_at_once() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        let path = program(place, "large");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(10 << 30).unwrap();
        drop(file);
        assert!(run(&path) < AT_ONCE);
        assert_eq!(gate.count("skipped"), "1");
        assert_eq!(gate.count("hashed"), "0");
    });
}

#[test]
fn many_at_once_are_all_hashed() {
    on_own_file_system(|place| {
        let mut gate = Gate::on(place, FOREVER);
        let paths: Vec<_> = (0..16)
            .map(|number| program(place, &format!("app-{number}")))
            .collect();
        thread::scope(|scope| {
            for path in &paths {
                scope.spawn(|| {
                    let mut child = start(path);
                    assert!(gate.said(&line_of_file(path)), "{}", path.display());
                    child.wait().unwrap();
                });
            }
        });
        assert_eq!(gate.count("hashed"), "16");
    });
}

/// Whoever holds a write lease on a file is asked to give it up before anybody
/// can open it, the watchdog included, and may take his time.
#[test]
fn a_leased_file_does_not_hold_up_the_others() {
    on_own_file_system(|place| {
        let gate = Gate::on(place, FOREVER);
        let leased = program(place, "leased");
        let file = File::open(&leased).unwrap();
        // SAFETY: these commands of fcntl(2) take numbers; SIGURG does nothing.
        unsafe {
            assert_eq!(
                libc::fcntl(file.as_raw_fd(), 10 /* F_SETSIG */, libc::SIGURG),
                0
            );
            let lease = libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK);
            assert_eq!(lease, 0, "{}", std::io::Error::last_os_error());
        }
        let begun = Instant::now();
        let refused = Command::new(&leased).spawn().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        let other = program(place, "other");
        run(&other);
        assert!(begun.elapsed() < AT_ONCE);
        assert!(gate.said(&line_of_file(&other)));
    });
}

#[test]
fn a_file_system_mounted_later_is_gated_too() {
    on_own_file_system(|place| {
        let output = Command::new(test_program())
            .args(["gate-host", "--on"])
            .arg(place)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told, "first\nlater\n", "{error}");
    });
}
