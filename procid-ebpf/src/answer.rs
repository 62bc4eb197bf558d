//! DNS answers that have reached a socket of this host.
//!
//! Called where a packet is handed to the socket that it is for: what nobody here
//! asked for, a socket filter would show as well. Of TCP a message is seen that
//! begins a segment, behind its two bytes of length, as far as that segment goes.
//!
//! They have a ring of their own: whoever sends answers in a flood displaces
//! nothing else. What the reader does with one is done before it looks at the
//! connections that came after it.

use core::{
    ffi::c_void,
    ptr::{addr_of_mut, read_volatile},
};

use aya_ebpf::{
    btf_maps::RingBuf, helpers::generated::bpf_skb_load_bytes, macros::btf_map,
    programs::SkBuffContext,
};
use procid_common::{
    answer::{Answer, MESSAGE_MAX, PORT},
    event::{Loss, kind},
    image::ImageId,
    socket::{Address, SocketTag},
};

use crate::{
    bytes::account_of,
    kernel::Kptr,
    maps::{NO_WAKEUP, lost},
    process::header,
    socket::{IPPROTO_TCP, IPPROTO_UDP},
    tag::{key, tag_of},
};

/// Answers; at 12,000 a second it holds what comes in 20 ms.
#[btf_map]
static ANSWERS: RingBuf<u8, { 512 << 10 }> = RingBuf::new();

/// Bytes of a UDP header, and of the header of a DNS message.
const UDP_HEADER: usize = 8;
const DNS_HEADER: u32 = 12;

/// Whether datagrams of the socket, which is not connected, have gone to port 53
/// of that address: what comes from elsewhere answers nothing.
#[inline(always)]
pub(crate) fn was_asked(tag: &SocketTag, server: &Address) -> bool {
    (tag.port == PORT && tag.destination == *server)
        || account_of(tag, &key(tag.cookie, *server, PORT)).is_some()
}

/// Tells of a datagram that comes from a server, where it is an answer.
#[inline(always)]
pub(crate) fn tell_datagram(ctx: &SkBuffContext, sk: *mut c_void) {
    let _no_answer = try_datagram(ctx, sk);
}

#[inline(always)]
fn try_datagram(ctx: &SkBuffContext, sk: *mut c_void) -> Option<()> {
    let at = transport(ctx, IPPROTO_UDP)? + UDP_HEADER;
    let whole = ctx.len().checked_sub(at as u32)?;
    tell(ctx, sk, at, whole, whole)
}

/// Tells of a segment that comes from a server, where it begins with an answer.
#[inline(always)]
pub(crate) fn tell_segment(ctx: &SkBuffContext, sk: *mut c_void) {
    let _no_answer = try_segment(ctx, sk);
}

#[inline(always)]
fn try_segment(ctx: &SkBuffContext, sk: *mut c_void) -> Option<()> {
    let header = transport(ctx, IPPROTO_TCP)?;
    let words: u8 = ctx.load(header + 12).ok()?;
    let at = header + usize::from(words >> 4) * 4;
    let whole = u32::from(u16::from_be(ctx.load::<u16>(at).ok()?));
    let at = at + size_of::<u16>();
    let here = ctx.len().checked_sub(at as u32)?;
    tell(ctx, sk, at, whole, here.min(whole))
}

/// Where the header of the transport begins; `None` where others stand between.
#[inline(always)]
fn transport(ctx: &SkBuffContext, protocol: u16) -> Option<usize> {
    let first: u8 = ctx.load(0).ok()?;
    if first >> 4 == 4 {
        return Some(usize::from(first & 0xf) * 4);
    }
    let next: u8 = ctx.load(6).ok()?;
    (u16::from(next) == protocol).then_some(40)
}

/// Hands a message on that says of itself that it answers one question, without an
/// error and with records.
///
/// <https://www.rfc-editor.org/rfc/rfc1035#section-4.1.1>
#[inline(always)]
fn tell(ctx: &SkBuffContext, sk: *mut c_void, at: usize, whole: u32, here: u32) -> Option<()> {
    let [_, _, flags, code, questions @ .., _, _]: [u8; 8] = ctx.load(at).ok()?;
    let answers: u16 = ctx.load(at + 6).ok()?;
    let is_answer = flags & 0xf8 == 0x80 && code & 0xf == 0;
    if !is_answer || questions != [0, 1] || answers == 0 {
        return None;
    }
    if here < DNS_HEADER {
        return None;
    }
    let Some(mut entry) = ANSWERS.reserve_untyped::<Answer>(0) else {
        lost(Loss::RingAnswer);
        return None;
    };
    let event = entry.as_mut_ptr();
    let len = here.min(MESSAGE_MAX as u32);
    let (image, netns) = asker(sk);
    // SAFETY: the entry has room for an `Answer`. Every field is written but the
    // end of the message, which `len` leaves out.
    let loaded = unsafe {
        (*event).header = header::<Answer>(kind::ANSWER);
        (*event).image = image;
        (*event).netns = netns;
        (*event).whole = whole;
        (*event).len = len;
        (*event).reserved = 0;
        let message = addr_of_mut!((*event).message);
        // From 1 to the most there is room for, which it is in any case: of a
        // comparison before, Linux 6.1 would not know that it was of this value.
        let len = read_volatile(&raw const (*event).len);
        let len = (len.wrapping_sub(1) & (MESSAGE_MAX as u32 - 1)) + 1;
        bpf_skb_load_bytes(ctx.skb.skb.cast(), at as u32, message.cast(), len)
    };
    if loaded == 0 {
        entry.submit(NO_WAKEUP);
    } else {
        entry.discard(NO_WAKEUP);
    }
    Some(())
}

/// Who used the socket last, and its network namespace.
#[inline(always)]
fn asker(sk: *mut c_void) -> (ImageId, u32) {
    match tag_of(sk) {
        Some(tag) => {
            let known = |image: ImageId| image.is_known().then_some(image);
            let image = known(tag.user).or(known(tag.connector));
            (image.unwrap_or(tag.creator), tag.netns)
        }
        None => (ImageId::UNKNOWN, Kptr::of(sk).sock_netns()),
    }
}
