//! The bytes that procid's kernel side and its userspace share.
//!
//! Every struct here is `repr(C)` without implicit padding (`zerocopy`'s
//! derives refuse to compile otherwise, for both targets) and its size is
//! asserted below its definition. On the wire there is no `bool`, no `usize`,
//! no `Option`: flags are `u32` with named bits, absence is a documented zero.
//! Fields are native-endian unless their documentation says network order.
//!
//! | module | holds |
//! | --- | --- |
//! | [`answer`] | DNS answers |
//! | [`event`] | header, kinds and loss causes of ring-buffer events |
//! | [`image`] | what names a process image, its credentials, its file |
//! | [`process`] | fork, exec and exit events, snapshot rows of processes |
//! | [`socket`] | the socket tag, connection events, snapshot rows of sockets |
//! | [`policy`] | the compiled policy, and the decision |
//! | [`protect`] | what is guarded while an agent is protected |
//! | [`offsets`] | offsets of kernel fields, filled in from the kernel's BTF |
#![no_std]

pub mod answer;
pub mod event;
pub mod image;
pub mod offsets;
pub mod policy;
pub mod process;
pub mod protect;
pub mod socket;
