//! The ids of containers, which their runtimes write into the names of cgroups.
//!
//! Docker, containerd, CRI-O and Podman name a container's cgroup by its id,
//! alone or behind a word of their own (`docker-ID.scope`,
//! `cri-containerd-ID.scope`, `libpod-ID.scope`,
//! `…-podUID.slice:cri-containerd:ID`). The cgroup of a container's monitor,
//! which runs outside it, is named so too, behind `conmon-`.
//!
//! <https://github.com/opencontainers/runc/blob/v1.2.4/docs/systemd.md>

/// Hexadecimal digits of an id.
pub const ID_LEN: usize = 64;
/// Digits of the shortest beginning that a rule may ask for.
pub const PREFIX_MIN: usize = 12;
/// End of a name that systemd manages.
pub const SCOPE: &[u8] = b".scope";
/// Before the id of a container whose monitor it is.
pub const MONITOR: &[u8; 8] = b"-conmon-";

/// The id of the container that a cgroup of this name is for.
pub fn id_in(name: &[u8]) -> Option<&str> {
    let name = name.strip_suffix(SCOPE).unwrap_or(name);
    let (before, id) = name.split_at_checked(name.len().checked_sub(ID_LEN)?)?;
    let is_apart = matches!(before.last(), None | Some(b'-' | b':'));
    if !is_apart || before.ends_with(MONITOR) || !id.iter().all(|digit| is_digit(*digit)) {
        return None;
    }
    core::str::from_utf8(id).ok()
}

/// Lower case, as runtimes write ids.
#[inline(always)]
pub const fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
