//! `process.entity_id`: the name of a process image outside this host.
//!
//! The first 16 bytes of a SHA-256 over
//!
//! ```text
//! "procid.entity/1" · boot id (16) · start_boottime LE (8) · tgid LE (4) · self_exec_id LE (8)
//! ```
//!
//! What it is: one name for one process image. It differs across hosts and
//! boots (boot id), across reuse of a pid (start time of the group leader) and
//! across exec (`self_exec_id`, which every exec raises). A fork gets one of
//! its own (another tgid, another start time). All of it is kernel state, so
//! an agent that was restarted computes the same name for a process that lived
//! on. See [`ImageId`] for the kernel's side of it.
//!
//! What it is not:
//!
//! - not a secret, and not unforgeable by who can choose the boot id: it names,
//!   it does not authenticate. The bytes are a digest only so that a name says
//!   nothing of the process and is of one length;
//! - not a name of a program: two runs of one file differ. That is the hash;
//! - not known to who reads /proc alone: the start time there is rounded to
//!   clock ticks (10 ms) and `self_exec_id` is not shown at all;
//! - not valid across checkpoint and restore (CRIU), nor in a clone of a
//!   running virtual machine, which carries its boot id along.

use std::{fmt, fs, io, str::FromStr};

use procid_common::image::ImageId;
use sha2::{Digest, Sha256};

const TAG: &[u8] = b"procid.entity/1";

/// Where the kernel tells its boot id.
pub const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The 16 bytes of one boot's random UUID.
pub type BootId = [u8; 16];

/// The name of one process image; printed as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityId([u8; 16]);

impl EntityId {
    /// The entity id of an image on the boot `boot_id`.
    ///
    /// One SHA-256 block or two, under a microsecond: done once for an image.
    pub fn new(boot_id: &BootId, id: &ImageId) -> Self {
        let digest = Sha256::new()
            .chain_update(TAG)
            .chain_update(boot_id)
            .chain_update(id.start_boottime.to_le_bytes())
            .chain_update(id.tgid.to_le_bytes())
            .chain_update(id.self_exec_id.to_le_bytes())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(bytes)
    }

    /// One that was kept.
    pub const fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityId({self})")
    }
}

/// Text that is not 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entity id is 32 lower-case hexadecimal digits")]
pub struct NotAnEntityId;

impl FromStr for EntityId {
    type Err = NotAnEntityId;

    fn from_str(text: &str) -> Result<Self, NotAnEntityId> {
        let digits = text.len() == 32 && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
        if !digits {
            return Err(NotAnEntityId);
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| NotAnEntityId)
    }
}

/// This boot's id.
///
/// # Errors
///
/// /proc is not mounted, or holds no UUID at [`BOOT_ID_PATH`].
pub fn boot_id() -> io::Result<BootId> {
    let text = fs::read_to_string(BOOT_ID_PATH)?;
    parse_boot_id(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{BOOT_ID_PATH} holds no UUID"),
        )
    })
}

/// Sixteen bytes as a UUID is written.
pub fn uuid(bytes: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn parse_boot_id(text: &str) -> Option<BootId> {
    let digits: String = text.trim_end().chars().filter(|&c| c != '-').collect();
    let hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| u128::from_str_radix(&digits, 16).ok())
        .flatten()
        .map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ID: ImageId = ImageId {
        start_boottime: 1_234_567_890,
        self_exec_id: 3,
        tgid: 4711,
        reserved: 0,
    };

    #[test]
    fn the_name_is_fixed_forever() {
        // Recorded histories hold these names: a change of the layout must
        // change the tag, and this test.
        assert_eq!(
            EntityId::new(&[7; 16], &ID).to_string(),
            "b0889ef378759b43eaa9a3655fe02eb6"
        );
    }

    #[test]
    fn every_part_tells() {
        let mut ids = [(ID, [7; 16]); 5];
        ids[1].0.start_boottime += 1;
        ids[2].0.self_exec_id += 1;
        ids[3].0.tgid += 1;
        ids[4].1[15] = 8;
        let names: HashSet<_> = ids
            .iter()
            .map(|(id, boot)| EntityId::new(boot, id))
            .collect();
        assert_eq!(names.len(), ids.len());
    }

    #[test]
    fn text_and_back() {
        let id = EntityId::new(&[0; 16], &ID);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "0", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33)] {
            assert_eq!(bad.parse::<EntityId>(), Err(NotAnEntityId), "{bad}");
        }
        let signed = format!("+{}", "0".repeat(31));
        assert_eq!(signed.parse::<EntityId>(), Err(NotAnEntityId));
    }

    #[test]
    fn boot_id_is_read_and_junk_is_refused() {
        assert_eq!(
            boot_id().expect("/proc is mounted"),
            boot_id().expect("/proc")
        );
        assert_eq!(
            parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n"),
            Some([
                0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff
            ])
        );
        assert_eq!(parse_boot_id("not a uuid"), None);
        assert_eq!(parse_boot_id(""), None);
    }
}
