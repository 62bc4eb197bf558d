//! Who is served: root, the agent's own user, and the group `procid`. Only root
//! changes the policy.
//!
//! The socket's mode already keeps others out; the peer's credentials are
//! checked as well, because a mode can be changed and a descriptor passed on.

use super::accounts;

/// Members may ask the agent.
pub const GROUP: &str = "procid";

/// The credentials the kernel noted when the peer connected (`SO_PEERCRED`,
/// [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    /// In the agent's pid namespace; `None`: it has none there.
    pub pid: Option<u32>,
}

impl Peer {
    /// Whether this peer may change the policy.
    pub const fn may_change(self) -> bool {
        self.uid == 0
    }
}

/// Whether this peer is served by an agent that runs as `own_uid`. An account
/// file that cannot be read serves nobody by group.
pub fn served(peer: Peer, own_uid: u32) -> bool {
    if peer.uid == 0 || peer.uid == own_uid {
        return true;
    }
    let Ok(Some(group)) = accounts::group(GROUP) else {
        return false;
    };
    let name = accounts::user_name(peer.uid).ok().flatten();
    member(peer, name.as_deref(), &group)
}

fn member(peer: Peer, name: Option<&str>, group: &accounts::Group) -> bool {
    peer.gid == group.gid || name.is_some_and(|name| group.members.iter().any(|m| m == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_agents_user_are_served_and_a_stranger_is_not() {
        let peer = |uid| Peer {
            uid,
            gid: 65_534,
            pid: None,
        };
        assert!(peer(0).may_change());
        assert!(!peer(990).may_change());
        assert!(served(peer(0), 990));
        assert!(served(peer(990), 990));
        assert!(!served(peer(4_000_000_000), 990));
    }

    #[test]
    fn the_group_is_primary_or_supplementary() {
        let group = accounts::Group {
            gid: 991,
            members: vec!["alice".to_owned()],
        };
        let peer = |gid| Peer {
            uid: 1000,
            gid,
            pid: None,
        };
        assert!(member(peer(991), None, &group));
        assert!(member(peer(1000), Some("alice"), &group));
        assert!(!member(peer(1000), Some("bob"), &group));
        assert!(!member(peer(1000), None, &group));
    }
}
