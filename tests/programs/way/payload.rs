//! The bytes that are sent: a pattern, so that both ends can tell whether what
//! arrives is what was sent.

use anyhow::{Result, bail, ensure};
use rustix::io::Errno;

/// The most that one call sends.
pub(crate) const PART: usize = 32 << 10;

/// A prime, so that no part of a power of two in length repeats.
const PERIOD: usize = 251;

static PATTERN: [u8; PART + PERIOD] = {
    let mut pattern = [0; PART + PERIOD];
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = (at % PERIOD) as u8;
        at += 1;
    }
    pattern
};

/// What a way sends and what it is sent, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl Load {
    /// A download begins with one byte that asks for it.
    pub(crate) fn new(bytes: u64, download: bool) -> Self {
        if download {
            Self { up: 1, down: bytes }
        } else {
            Self { up: bytes, down: 0 }
        }
    }
}

/// `length` bytes of the pattern from `offset` on.
pub(crate) fn part(offset: u64, length: usize) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    &PATTERN[start..][..length]
}

/// The parts, by offset and length, of `total` bytes.
pub(crate) fn parts(total: u64, most: usize) -> impl Iterator<Item = (u64, usize)> {
    (0..total.div_ceil(most as u64)).map(move |number| {
        let offset = number * most as u64;
        (offset, (total - offset).min(most as u64) as usize)
    })
}

pub(crate) fn check(offset: u64, bytes: &[u8]) -> Result<()> {
    for (at, length) in parts(bytes.len() as u64, PART) {
        let piece = &bytes[at as usize..][..length];
        ensure!(
            piece == part(offset + at, length),
            "what arrived at offset {} is not what was sent",
            offset + at
        );
    }
    Ok(())
}

/// Sends the bytes of the stream from `from` to `to`.
pub(crate) fn send_all(
    from: u64,
    to: u64,
    mut send: impl FnMut(&'static [u8]) -> rustix::io::Result<usize>,
) -> Result<u64> {
    let mut at = from;
    while at < to {
        let length = (to - at).min(PART as u64) as usize;
        match send(part(at, length)) {
            Ok(0) => bail!("nothing was sent at offset {at}"),
            Ok(sent) => at += sent as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(at - from)
}

/// Receives a stream to its end, which must come after `expected` bytes.
pub(crate) fn receive_all(
    expected: u64,
    mut receive: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> Result<u64> {
    let mut buffer = vec![0; 2 * PART];
    let mut at = 0;
    loop {
        match receive(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                check(at, &buffer[..length])?;
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(at == expected, "{at} bytes arrived, {expected} were sent");
    Ok(at)
}
