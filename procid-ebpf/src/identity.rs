//! Who a task is, read from the task itself at the moment of the act.

use procid_common::{
    image::{Credentials, ImageId},
    offsets::ABSENT,
    process::{Actor, COMM_LEN},
};

use crate::kernel::{Object, Typed, offset};

/// `PF_KTHREAD`: <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched.h#L1718>
pub(crate) const PF_KTHREAD: u32 = 0x0020_0000;
/// `PF_IO_WORKER`
pub(crate) const PF_IO_WORKER: u32 = 0x0000_0010;
/// Index of the thread group's pid in `signal_struct.pids`.
const PIDTYPE_TGID: usize = 1;

/// The image that `task` runs.
///
/// The leader's start time stands for the process even when the leader has
/// exited: its `task_struct` is kept until the whole group is reaped.
#[inline(always)]
pub(crate) fn image_of<O: Object>(task: O) -> Option<ImageId> {
    let leader = task.follow(offset!(task_group_leader))?;
    Some(ImageId {
        start_boottime: leader.read(offset!(task_start_boottime))?,
        self_exec_id: task.read(offset!(task_self_exec_id))?,
        tgid: task.read(offset!(task_tgid))?,
        reserved: 0,
    })
}

/// The image in whose context the program runs: [`image_of`] without a helper
/// call for each field.
#[inline(always)]
pub(crate) fn current_image() -> Option<ImageId> {
    image_of(Typed::current())
}

#[inline(always)]
pub(crate) fn task_flags<O: Object>(task: O) -> u32 {
    task.read(offset!(task_flags)).unwrap_or(0)
}

/// A task as `bpf_get_current_pid_tgid` has it, for programs without that helper.
#[inline(always)]
pub(crate) fn thread_of<O: Object>(task: O) -> u64 {
    let tgid: u32 = task.read(offset!(task_tgid)).unwrap_or(0);
    let pid: u32 = task.read(offset!(task_pid)).unwrap_or(0);
    u64::from(tgid) << 32 | u64::from(pid)
}

#[inline(always)]
fn fill_credentials<O: Object>(task: O, creds: &mut Credentials) -> Option<()> {
    let cred = task.follow(offset!(task_cred))?;
    creds.uid = cred.read(offset!(cred_uid))?;
    creds.gid = cred.read(offset!(cred_gid))?;
    creds.euid = cred.read(offset!(cred_euid))?;
    creds.egid = cred.read(offset!(cred_egid))?;
    creds.loginuid = optional(task, offset!(task_loginuid));
    creds.sessionid = optional(task, offset!(task_sessionid));
    Some(())
}

#[inline(always)]
fn optional<O: Object>(task: O, offset: usize) -> u32 {
    if offset == ABSENT as usize {
        return u32::MAX;
    }
    task.read(offset).unwrap_or(u32::MAX)
}

/// The file that a task runs.
#[inline(always)]
pub(crate) fn exe_file<O: Object>(task: O) -> Option<O> {
    task.follow(offset!(task_mm))?.follow(offset!(mm_exe_file))
}

/// The task's cgroup in the v2 hierarchy, as `bpf_get_current_cgroup_id` has
/// it, but of any task; 0 when unknown.
#[inline(always)]
pub(crate) fn cgroup_of<O: Object>(task: O) -> u64 {
    let absent = ABSENT as usize;
    if offset!(task_cgroups) == absent
        || offset!(css_set_dfl_cgrp) == absent
        || offset!(cgroup_kn) == absent
        || offset!(kernfs_node_id) == absent
    {
        return 0;
    }
    task.follow(offset!(task_cgroups))
        .and_then(|set| set.follow(offset!(css_set_dfl_cgrp)))
        .and_then(|cgroup| cgroup.follow(offset!(cgroup_kn)))
        .and_then(|node| node.read(offset!(kernfs_node_id)))
        .unwrap_or(0)
}

/// The thread group's id in its own pid namespace; 0 when unknown.
#[inline(always)]
fn vpid_of<O: Object>(task: O) -> u32 {
    task.follow(offset!(task_signal))
        .and_then(|signal| signal.follow(offset!(signal_pids) + PIDTYPE_TGID * 8))
        .and_then(|pid| {
            let level: u32 = pid.read(offset!(pid_level))?;
            // The place depends on the level: no load of a typed pointer.
            let upid = pid
                .address()
                .add(offset!(pid_numbers))
                .add((level & 0xff) as usize * offset!(upid_size));
            upid.read(offset!(upid_nr))
        })
        .unwrap_or(0)
}

#[inline(always)]
fn namespaces_of<O: Object>(task: O) -> (u32, u32) {
    let Some(nsproxy) = task.follow(offset!(task_nsproxy)) else {
        return (0, 0);
    };
    let net = nsproxy
        .follow(offset!(nsproxy_net_ns))
        .and_then(|net| net.read(offset!(net_inum)))
        .unwrap_or(0);
    let mnt = nsproxy
        .follow(offset!(nsproxy_mnt_ns))
        .and_then(|mnt| mnt.read(offset!(mnt_namespace_inum)))
        .unwrap_or(0);
    (net, mnt)
}

/// The task's mount namespace, if it is the superuser's; else 0.
#[inline(always)]
pub(crate) fn superusers_mntns<O: Object>(task: O) -> u32 {
    task.follow(offset!(task_nsproxy))
        .and_then(|nsproxy| nsproxy.follow(offset!(nsproxy_mnt_ns)))
        .and_then(|mntns| {
            if is_superusers(mntns)? {
                mntns.read(offset!(mnt_namespace_inum))
            } else {
                None
            }
        })
        .unwrap_or(0)
}

/// Whether the initial user namespace owns a mount namespace, so that only the
/// superuser can arrange it.
#[inline(always)]
pub(crate) fn is_superusers<O: Object>(mntns: O) -> Option<bool> {
    let level: i32 = mntns
        .follow(offset!(mnt_namespace_user_ns))?
        .read(offset!(user_namespace_level))?;
    Some(level == 0)
}

/// Fills in all that is kept of a task when its image is born or found. (In
/// place: the BPF stack has 512 bytes.)
#[inline(always)]
pub(crate) fn describe_actor<O: Object>(task: O, actor: &mut Actor) -> Option<()> {
    let (netns, mntns) = namespaces_of(task);
    fill_credentials(task, &mut actor.creds)?;
    actor.tid = task.read(offset!(task_pid))?;
    actor.vpid = vpid_of(task);
    actor.cgroup = cgroup_of(task);
    actor.netns = netns;
    actor.mntns = mntns;
    actor.comm = task.read(offset!(task_comm)).unwrap_or([0; COMM_LEN]);
    Some(())
}

/// What can have changed since the image was born: the rest of [`Actor`] is
/// zero and is taken from the image.
#[inline(always)]
pub(crate) fn describe_acting<O: Object>(task: O, actor: &mut Actor) -> Option<()> {
    fill_credentials(task, &mut actor.creds)?;
    actor.tid = task.read(offset!(task_pid))?;
    actor.vpid = 0;
    actor.cgroup = cgroup_of(task);
    actor.netns = 0;
    actor.mntns = 0;
    actor.comm = task.read(offset!(task_comm)).unwrap_or([0; COMM_LEN]);
    Some(())
}
