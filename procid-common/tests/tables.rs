//! The tables of numbers and names that both sides index by.

use std::collections::BTreeSet;

use procid_common::{
    event::{Loss, kind},
    image::{FileState, ImageId, flags as image_flags},
    socket::{Hook, flags as socket_flags},
};

/// `LOSSES` is indexed by the cause's number.
#[test]
fn loss_causes_stand_at_their_own_index() {
    for (index, loss) in Loss::ALL.into_iter().enumerate() {
        assert_eq!(loss as usize, index);
    }
    let names: BTreeSet<_> = Loss::ALL.map(Loss::name).into();
    assert_eq!(names.len(), Loss::ALL.len());
}

#[test]
fn hooks_have_numbers_and_names_of_their_own() {
    let numbers: BTreeSet<_> = Hook::ALL.map(|hook| hook as u32).into();
    let names: BTreeSet<_> = Hook::ALL.map(Hook::name).into();
    assert_eq!(numbers.len(), Hook::ALL.len());
    assert_eq!(names.len(), Hook::ALL.len());
}

#[test]
fn event_kinds_are_distinct() {
    let kinds = [
        kind::FORK,
        kind::EXEC,
        kind::EXIT,
        kind::TASK_ROW,
        kind::ATTEMPT,
        kind::OUTCOME,
        kind::CLOSE,
        kind::SOCKET_ROW,
        kind::FILE_ROW,
        kind::ASKED_ROW,
        kind::OPEN_ROW,
    ];
    assert_eq!(BTreeSet::from(kinds).len(), kinds.len());
}

/// Every flag is one bit, and no two share one.
#[test]
fn flags_are_single_bits() {
    let image = [
        image_flags::DELETED,
        image_flags::MEMFD,
        image_flags::OVERLAY,
        image_flags::KTHREAD,
        image_flags::CTIME_QUERIED,
        image_flags::PATH_TRUNCATED,
        image_flags::ARGS_TRUNCATED,
        image_flags::ARGS_UNREADABLE,
        image_flags::NO_EXE,
        image_flags::FORKED,
        image_flags::SNAPSHOT,
        image_flags::PARENT_UNSURE,
        image_flags::PATH_UNREACHABLE,
        image_flags::IO_WORKER,
    ];
    let socket = [
        socket_flags::KERNEL,
        socket_flags::CREATOR_UNSEEN,
        socket_flags::IO_WORKER,
        socket_flags::PENDING,
        socket_flags::PENDING_SOURCE,
        socket_flags::KTHREAD,
        socket_flags::SEND,
        socket_flags::CONNECTED,
        socket_flags::ACCEPTED,
        socket_flags::SUBFLOW,
        socket_flags::MANY_PEERS,
        socket_flags::SENT_UNKNOWN,
        socket_flags::RECEIVED_UNKNOWN,
        socket_flags::SCANNER,
        socket_flags::OTHERS,
        socket_flags::WITHHELD,
        socket_flags::ENDED,
    ];
    for flags in [&image[..], &socket[..]] {
        assert!(flags.iter().all(|flag| flag.count_ones() == 1));
        let all = flags.iter().fold(0_u32, |all, flag| all | flag);
        assert_eq!(all.count_ones() as usize, flags.len());
    }
}

/// The kernel's `dev_t` keeps 20 bits of minor number.
#[test]
fn devices_split_as_the_kernel_packs_them() {
    let file = FileState {
        dev: (254 << 20) | 1_048_575,
        ..FileState::default()
    };
    assert_eq!((file.major(), file.minor()), (254, 1_048_575));
}

#[test]
fn an_image_id_of_zeroes_is_unknown() {
    assert_eq!(ImageId::UNKNOWN, ImageId::default());
    assert!(!ImageId::UNKNOWN.is_known());
    let known = ImageId {
        tgid: 1,
        ..ImageId::UNKNOWN
    };
    assert!(known.is_known());
}
