//! Which capabilities procid needs to attach, and which it keeps after.
//!
//! Capabilities belong to threads
//! ([capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html)):
//! a thread made after [`reduce`] starts without them, one made before keeps
//! what it had.

use rustix::thread::{CapabilitySet, CapabilitySets};

/// Loading programs that read kernel memory (BPF, PERFMON) and attaching them
/// to cgroups (NET_ADMIN).
pub const TO_ATTACH: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN);

/// What later work needs:
///
/// - `BPF`: map reads and new iterators, wherever `unprivileged_bpf_disabled`
///   is set (<https://docs.kernel.org/admin-guide/sysctl/kernel.html#unprivileged-bpf-disabled>);
/// - `NET_ADMIN`: questions to the kernel's table of tracked connections, of how
///   they are translated;
/// - `SYS_PTRACE`: `/proc/PID/exe` of other users' processes;
/// - `DAC_READ_SEARCH`: the files behind them, to hash.
pub const TO_RUN: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// What this thread may do now.
///
/// # Errors
///
/// Of capget(2).
pub fn effective() -> rustix::io::Result<CapabilitySet> {
    Ok(rustix::thread::capabilities(None)?.effective)
}

/// What is missing of `wanted`. `SYS_ADMIN` stands in for `BPF` and `PERFMON`,
/// which were split from it
/// ([capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html)).
///
/// # Errors
///
/// Of capget(2).
pub fn missing(wanted: CapabilitySet) -> rustix::io::Result<CapabilitySet> {
    let mut have = effective()?;
    if have.contains(CapabilitySet::SYS_ADMIN) {
        have |= CapabilitySet::BPF | CapabilitySet::PERFMON;
    }
    Ok(wanted - have)
}

/// Gives up everything but `keep` in this thread and those it will make, for
/// good: no program it might execute gets anything back. Returns what remains.
///
/// # Errors
///
/// Of prctl(2) and capset(2); the thread may then have more than `keep`.
pub fn reduce(keep: CapabilitySet) -> rustix::io::Result<CapabilitySet> {
    rustix::thread::set_no_new_privs(true)?;
    let have = rustix::thread::capabilities(None)?;
    if have.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not have yet.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let keep = keep & have.permitted | stand_in(keep, have.permitted);
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(keep)
}

/// `SYS_ADMIN`, where it is the only permission to use bpf(2) there is.
fn stand_in(keep: CapabilitySet, have: CapabilitySet) -> CapabilitySet {
    if (keep - have).contains(CapabilitySet::BPF) {
        have & CapabilitySet::SYS_ADMIN
    } else {
        CapabilitySet::empty()
    }
}

/// `CAP_BPF`, `CAP_SYS_PTRACE`, …
pub fn names(capabilities: CapabilitySet) -> Vec<String> {
    capabilities
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_stays_given_up() {
        // In a thread of its own: the other tests keep theirs.
        std::thread::spawn(|| {
            let had = rustix::thread::capabilities(None).unwrap().permitted;
            let left = reduce(TO_RUN).unwrap();
            assert_eq!(left, had & TO_RUN);
            let have = rustix::thread::capabilities(None).unwrap();
            assert_eq!((have.effective, have.permitted), (left, left));
            assert!(have.inheritable.is_empty());
            assert!(rustix::thread::no_new_privs().unwrap());
            assert_eq!(
                missing(CapabilitySet::PERFMON).unwrap(),
                CapabilitySet::PERFMON
            );
            let below = std::thread::spawn(effective).join().unwrap().unwrap();
            assert_eq!(below, left);
            assert_eq!(
                reduce(CapabilitySet::empty()).unwrap(),
                CapabilitySet::empty()
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn sys_admin_is_kept_only_where_there_is_no_bpf() {
        let admin = CapabilitySet::SYS_ADMIN;
        assert_eq!(stand_in(TO_RUN, admin | TO_RUN), CapabilitySet::empty());
        assert_eq!(stand_in(TO_RUN, admin), admin);
        assert_eq!(
            stand_in(CapabilitySet::empty(), admin),
            CapabilitySet::empty()
        );
    }

    #[test]
    fn names_are_those_of_the_manual() {
        assert_eq!(
            names(TO_RUN).join(" "),
            "CAP_DAC_READ_SEARCH CAP_NET_ADMIN CAP_SYS_PTRACE CAP_BPF"
        );
    }
}
