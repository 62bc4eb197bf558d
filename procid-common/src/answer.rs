//! The event of a DNS answer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{event::Header, image::ImageId};

/// The port whose answers are looked at.
pub const PORT: u32 = 53;

/// Most bytes of a message that are kept: more than the 1,232 that resolvers ask
/// for over UDP, and than one segment of TCP carries over Ethernet. A power of two:
/// see where they are loaded.
pub const MESSAGE_MAX: usize = 2_048;

/// [`crate::event::kind::ANSWER`]: a message from port 53 that says of itself that
/// it answers one question has reached a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Answer {
    pub header: Header,
    /// The image that used the socket last; unknown where the socket is older than
    /// the hooks.
    pub image: ImageId,
    /// Inode of the socket's network namespace.
    pub netns: u32,
    /// Bytes of the message, and how many of them are here.
    pub whole: u32,
    pub len: u32,
    pub reserved: u32,
    pub message: [u8; MESSAGE_MAX],
}

const _: () = assert!(size_of::<Answer>() == 56 + MESSAGE_MAX);
