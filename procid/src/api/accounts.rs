//! Users and groups of /etc/passwd and /etc/group.
//!
//! The files are read directly: a statically linked program cannot load the
//! name service's modules, and the agent must not wait for a directory server.
//! Accounts that only a directory knows are given by number.

use std::{fs, io};

use crate::policy::text::Names;

/// The accounts of this host; files that cannot be read have none.
#[derive(Clone, Copy, Debug)]
pub struct Accounts;

impl Names for Accounts {
    fn uid(&self, name: &str) -> Option<u32> {
        user_id(name).ok().flatten()
    }

    fn gid(&self, name: &str) -> Option<u32> {
        group(name).ok().flatten().map(|group| group.gid)
    }
}

/// A line of /etc/group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub gid: u32,
    /// Users whose supplementary group it is.
    pub members: Vec<String>,
}

/// The uid of a user given by number or by name; `None`: no such name.
///
/// # Errors
///
/// Of reading /etc/passwd.
pub fn user_id(user: &str) -> io::Result<Option<u32>> {
    if let Ok(uid) = user.parse() {
        return Ok(Some(uid));
    }
    let passwd = fs::read("/etc/passwd")?;
    Ok(lines(&passwd).find_map(|fields| (fields.first()? == &user).then_some(id(&fields)?)))
}

/// The first name that has this uid.
///
/// # Errors
///
/// Of reading /etc/passwd.
pub fn user_name(uid: u32) -> io::Result<Option<String>> {
    let passwd = fs::read("/etc/passwd")?;
    Ok(lines(&passwd)
        .find(|fields| id(fields) == Some(uid))
        .and_then(|fields| fields.first().map(|name| (*name).to_owned())))
}

/// The group of that name; `None`: there is none.
///
/// # Errors
///
/// Of reading /etc/group.
pub fn group(name: &str) -> io::Result<Option<Group>> {
    let file = fs::read("/etc/group")?;
    Ok(lines(&file).find_map(|fields| {
        (fields.first()? == &name).then_some(Group {
            gid: id(&fields)?,
            members: fields
                .get(3)
                .into_iter()
                .flat_map(|members| members.split(','))
                .filter(|member| !member.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }))
}

/// The colon-separated fields of each line that is UTF-8.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    file.split(|&b| b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.split(':').collect())
}

/// Both files have the numeric id third.
fn id(fields: &[&str]) -> Option<u32> {
    fields.get(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_zero_by_name_and_by_number() {
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert_eq!(user_id("4711").unwrap(), Some(4711));
        assert_eq!(user_id("no:such").unwrap(), None);
        assert_eq!(user_name(0).unwrap().as_deref(), Some("root"));
    }

    #[test]
    fn a_group_lists_its_members() {
        let file = b"root:x:0:\nprocid:x:991:alice,bob\n\xff\n";
        let found: Vec<_> = lines(file).collect();
        assert_eq!(found.get(1).and_then(|f| id(f)), Some(991));
        assert_eq!(group("root").unwrap().map(|g| g.gid), Some(0));
        assert_eq!(group("no such group").unwrap(), None);
    }
}
