//! procid's kernel side: programs that tag sockets with the process images
//! that use them, and tell userspace of images and connections.
//!
//! One file per hook family; what they share is in the rooms below.
//!
//! | hooks | file |
//! | --- | --- |
//! | fork, exec, exit | [`process`] |
//! | IMA hash and script inside exec | [`measure`] |
//! | socket creation and release | [`lifetime`] |
//! | connect | [`connect`] |
//! | datagrams with an address | [`send`] |
//! | what was sent and received | [`bytes`] |
//! | packets | [`packet`] |
//! | DNS answers among them | [`answer`] |
//! | TCP data that are denied | [`withhold`] |
//! | accept, and other users of a socket | [`custody`] |
//! | TCP state changes, retransmissions | [`state`] |
//! | iterators for what existed before | [`iterate`] |
//! | what others do to a protected agent | [`protect`] |
//!
//! | shared | file |
//! | --- | --- |
//! | offsets of kernel fields, and reading them | [`kernel`] |
//! | who a task is | [`identity`] |
//! | inode state and path of a file | [`file`] |
//! | socket facts | [`socket`] |
//! | the socket tag | [`tag`] |
//! | attempts and their outcomes | [`attempt`] |
//! | whether an act is allowed | [`policy`] |
//! | maps | [`maps`] |
#![no_std]
#![no_main]
#![expect(internal_features, reason = "atomics: see `atomic`")]
#![feature(core_intrinsics)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's attributes hand the context over by value"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value in place of a reference would be copied to the 512-byte stack"
)]

mod answer;
mod atomic;
mod attempt;
mod bytes;
mod connect;
mod custody;
mod file;
mod identity;
mod iterate;
mod kernel;
mod lifetime;
mod maps;
mod measure;
mod packet;
mod policy;
mod process;
mod protect;
mod send;
mod socket;
mod state;
mod tag;
mod withhold;

/// The kernel loads LSM programs, and lends most helpers, only to programs
/// under a GPL-compatible licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // An endless loop is refused by the verifier: a program that could panic
    // does not load, rather than misbehave.
    loop {}
}
