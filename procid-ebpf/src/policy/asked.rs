//! The decision, without the act: the agent asks what the programs would say,
//! of any task, under any set of tables. Nothing is counted.
//!
//! Iterators run under the RCU read lock, which keeps a task's credentials,
//! css_set and cgroup; its memory and executable it does not keep: an answer is
//! thrown away where they are others at its end.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/bpf_iter.c#L686>

use aya_ebpf::{
    btf_maps::Array,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_get_socket_cookie, bpf_sock_from_file},
    },
    macros::btf_map,
};
use procid_common::{
    event::kind,
    image::ImageId,
    policy::{
        NO_RULE,
        asked::{Answer, Asked, AskedRow, OpenRow, answer},
        flags, unknown, verdict,
    },
    socket::flags::{ACCEPTED, CONNECTED},
};

use super::{
    Question, acts, ask_the_rest, copy, each, find_cgroup, is_left_alone,
    maps::{Scratch, give_back, head_at, scratch_at, take},
    outcome, put, role_of,
    subject::{find_out, find_out_apart},
};
use crate::{
    attempt::act_of_sock,
    connect::internet_sk,
    custody::is_task_watched,
    identity::{exe_file, image_of},
    iterate::{TaskContext, TaskFileContext, row_header, write},
    kernel::{Kptr, offset},
    socket::{TCP_CLOSE, TCP_LISTEN},
    tag::tag_of,
};

/// Written by the agent, before it starts an iterator.
#[btf_map]
static ASKED: Array<Asked, 1> = Array::new();

/// The row under way: too large for the stack. The agent runs one iterator at a
/// time.
#[btf_map]
static ASKED_ROW: Array<AskedRow, 1> = Array::new();

/// What the policy would say to each thread of the process asked about.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub(crate) extern "C" fn iterate_asked(ctx: *const TaskContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    if ctx.task.is_null() {
        return 0;
    }
    let task = Kptr::of(ctx.task);
    let (Some(asked), Some(row)) = (ASKED.get_ptr(0), ASKED_ROW.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: map values; see `ASKED_ROW`.
    let (asked, row) = unsafe { (&*asked, &mut *row) };
    if task.read(offset!(task_tgid)) != Some(asked.tgid) {
        return 0;
    }
    let Some(scratch) = take() else {
        return 0;
    };
    let at = scratch.at;
    if try_asked(task, asked, row, scratch).is_some() {
        write(
            ctx.meta,
            core::ptr::from_ref(row).cast(),
            size_of::<AskedRow>(),
        );
    }
    if let Some(scratch) = scratch_at(at) {
        give_back(scratch);
    }
    0
}

#[inline(always)]
fn try_asked(task: Kptr, asked: &Asked, row: &mut AskedRow, scratch: &mut Scratch) -> Option<()> {
    let image = image_of(task)?;
    let file = address_of_exe(task);
    let (at, slot) = (scratch.at, asked.slot);
    scratch.task = task;
    acts(scratch, task);
    scratch.key.slot = slot.into();
    scratch.instead = *asked;
    scratch.question = Question {
        destination: asked.destination,
        sk: Kptr(0),
        since_ns: 0,
        role: asked.role as usize,
        port: asked.port,
        socket: asked.socket,
    };
    row.header = row_header::<AskedRow>(kind::ASKED_ROW);
    row.image = image;
    row.tid = task.read(offset!(task_pid))?;
    let (uid, gid) = super::owner(scratch);
    row.uid = uid;
    row.gid = gid;
    find_out_apart(at, slot, row);
    row.path_known = scratch.path_known;
    row.root_known = scratch.root_known;
    row.exe_ino = scratch.exe_ino;
    row.exe_dev = scratch.exe_dev;
    row.hash_known = scratch.subject.hash_known as u32;
    each(|word| put(&mut scratch.around[word], u64::MAX));
    row.cgroup_known = u32::from(find_cgroup(at, slot));
    copy(&mut row.cgroup, &scratch.around);
    row.answer = answer_of(at, slot);
    row.answer.role = asked.role;
    is_still(task, image, file).then_some(())
}

/// Every open connection of every process, and what the policy would say to its
/// next send.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) extern "C" fn iterate_open(ctx: *const TaskFileContext) -> i32 {
    // SAFETY: the context is valid for the program's run.
    let ctx = unsafe { &*ctx };
    if ctx.task.is_null() || ctx.file.is_null() {
        return 0;
    }
    // SAFETY: not null, as the helper asks.
    let socket = unsafe { bpf_sock_from_file(ctx.file.cast()) }.cast::<u8>();
    if socket.is_null() {
        return 0;
    }
    let Some(sk) = internet_sk(socket) else {
        return 0;
    };
    let sock = Kptr::of(sk);
    let state = sock.sock_state();
    if state == TCP_CLOSE || state == TCP_LISTEN {
        return 0;
    }
    let task = Kptr::of(ctx.task);
    let Some(image) = image_of(task) else {
        return 0;
    };
    // SAFETY: a BTF pointer.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    let mut act = act_of_sock(sock, cookie, procid_common::socket::Hook::LsmSendmsg);
    let mut row = OpenRow {
        header: row_header::<OpenRow>(kind::OPEN_ROW),
        image,
        cookie,
        destination: act.destination,
        port: act.port,
        netns: sock.sock_netns(),
        socket: act.socket,
        answer: NO_ANSWER,
    };
    if !is_task_watched(task) {
        row.answer.answer = answer::LEFT_ALONE;
    // Of a connection that is older than the hooks nothing tells whether it has
    // come in.
    } else if let Some(tag) = tag_of(sk)
        && tag.flags & CONNECTED != 0
        && tag.since_ns != 0
        && tag.redial == 0
        && let Some(asked) = ASKED.get_ptr(0)
        && let Some(scratch) = take()
    {
        if tag.flags & ACCEPTED == 0 {
            act.destination = tag.destination;
            act.port = tag.port;
            row.destination = tag.destination;
            row.port = tag.port;
        }
        // SAFETY: a map value.
        let slot = unsafe { (*asked).slot };
        let file = address_of_exe(task);
        let at = scratch.at;
        let role = role_of(task, tag, false);
        scratch.task = task;
        acts(scratch, task);
        scratch.key.slot = slot.into();
        scratch.question = act.question(sock, role, tag.since_ns);
        let answered = answer_of(at, slot);
        if is_still(task, image, file) {
            row.answer = answered;
            row.answer.role = role as u32;
        }
        if let Some(scratch) = scratch_at(at) {
            give_back(scratch);
        }
    }
    write(ctx.meta, (&raw const row).cast(), size_of::<OpenRow>());
    0
}

const NO_ANSWER: Answer = Answer {
    answer: answer::NONE,
    verdict: verdict::ALLOW,
    rule: NO_RULE,
    audit: NO_RULE,
    unknown: unknown::NOTHING,
    role: 0,
};

/// Asks what is in the scratch.
#[inline(always)]
fn answer_of(at: u32, slot: u32) -> Answer {
    match procid_open_for(at, slot) {
        answer::JUDGED => {}
        other => {
            return Answer {
                answer: other,
                ..NO_ANSWER
            };
        }
    }
    find_out(at, slot);
    if !ask_the_rest(at, slot) {
        return NO_ANSWER;
    }
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return NO_ANSWER;
    };
    let is_roomless = scratch.judgement.unknown == unknown::ROOM;
    Answer {
        answer: answer::JUDGED,
        verdict: if is_roomless {
            outcome(head.flags & flags::OVERFLOW_DENY != 0, head.flags)
        } else {
            outcome(scratch.denied != 0, head.flags)
        },
        rule: scratch.judgement.rule,
        audit: scratch.judgement.audit,
        unknown: scratch.judgement.unknown,
        role: 0,
    }
}

/// As `procid_open`, of the tables of a slot, in force or not.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn procid_open_for(at: u32, slot: u32) -> u32 {
    let (Some(scratch), Some(head)) = (scratch_at(at), head_at(slot)) else {
        return answer::NONE;
    };
    // SAFETY: takes no argument.
    scratch.now = unsafe { bpf_ktime_get_boot_ns() };
    scratch.judgement.generation = head.generation;
    if head.generation == 0 {
        answer::NONE
    } else if is_left_alone(&scratch.question, head) {
        answer::LEFT_ALONE
    } else {
        answer::JUDGED
    }
}

/// Address of the file that a task runs; 0: none.
#[inline(always)]
fn address_of_exe(task: Kptr) -> u64 {
    exe_file(task).map_or(0, |file| file.0)
}

/// Whether a task runs the same image, of the same file, as before.
#[inline(always)]
fn is_still(task: Kptr, image: ImageId, file: u64) -> bool {
    image_of(task) == Some(image) && address_of_exe(task) == file
}
