//! Who is at the other end of the socket, and whether they may come in.
use std::fs;

use crate::agent::history::Author;

/// Credentials that the kernel recorded when the peer connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// Who may come in: root, the agent's own user, members of the socket's group. The socket's mode (0660) says the
/// same; this holds where the mode was changed, or the connection was handed on by another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// User id of the agent.
    pub own_uid: u32,
    /// Group of the socket.
    pub gid: u32,
    /// Names of the users that the group lists.
    pub members: Vec<String>,
    /// `uid` → name, from `/etc/passwd`.
    pub users: Vec<(u32, String)>,
}

impl Policy {
    /// Reads the members of group `gid` from the text of `/etc/group` and names from that of `/etc/passwd`.
    #[must_use]
    pub fn read(own_uid: u32, gid: u32, passwd: &str, group: &str) -> Self {
        let members = group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(gid))
            .and_then(|fields| fields.get(3).map(|names| (*names).to_owned()))
            .unwrap_or_default();
        let users = passwd
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                Some((fields.get(2)?.parse().ok()?, (*fields.first()?).to_owned()))
            })
            .collect();
        let members = members.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self { own_uid, gid, members, users }
    }

    /// The same from the files of this host; a file that cannot be read names nobody.
    #[must_use]
    pub fn of_host(own_uid: u32, gid: u32) -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self::read(own_uid, gid, &text("/etc/passwd"), &text("/etc/group"))
    }

    /// Whether `peer` may come in.
    #[must_use]
    pub fn admits(&self, peer: Peer) -> bool {
        peer.uid == 0
            || peer.uid == self.own_uid
            || peer.gid == self.gid
            || self.name(peer.uid).is_some_and(|name| self.members.iter().any(|member| member == name))
    }

    /// The peer as the history knows it.
    #[must_use]
    pub fn author(&self, peer: Peer) -> Author {
        let name = self.name(peer.uid).map_or_else(|| peer.uid.to_string(), str::to_owned);
        Author { uid: Some(peer.uid), name }
    }

    fn name(&self, uid: u32) -> Option<&str> {
        self.users.iter().find(|(id, _)| *id == uid).map(|(_, name)| name.as_str())
    }
}

/// Id of the group with this name (or number), from the text of `/etc/group`.
#[must_use]
pub fn group_id(name: &str, group: &str) -> Option<u32> {
    let by_name = group.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&name)).then(|| fields.get(2)?.parse().ok()).flatten()
    });
    by_name.or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/ada:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nada:x:1000:\ncanary:x:990:ada,eve\nempty:x:991:\n";

    #[test]
    fn who_may_come_in() {
        let policy = Policy::read(500, 990, PASSWD, GROUP);
        for (who, uid, gid, admitted) in [
            ("root", 0, 0, true),
            ("the agent's own user", 500, 500, true),
            ("a listed member", 1000, 1000, true),
            ("somebody whose primary group it is", 1001, 990, true),
            ("somebody else", 1001, 1001, false),
            ("a user without a name", 4242, 4242, false),
            ("root's group without root", 1001, 0, false),
        ] {
            assert_eq!(policy.admits(Peer { uid, gid }), admitted, "{who}");
        }
    }

    #[test]
    fn a_group_without_members_admits_nobody_more() {
        let policy = Policy::read(500, 991, PASSWD, GROUP);
        assert!(!policy.admits(Peer { uid: 1000, gid: 1000 }));
        assert!(policy.members.is_empty());
    }

    #[test]
    fn authors_have_names_where_the_host_knows_them() {
        let policy = Policy::read(500, 990, PASSWD, GROUP);
        assert_eq!(policy.author(Peer { uid: 1000, gid: 1 }), Author { uid: Some(1000), name: "ada".into() });
        assert_eq!(policy.author(Peer { uid: 7, gid: 1 }), Author { uid: Some(7), name: "7".into() });
    }

    #[test]
    fn groups_by_name_or_number() {
        assert_eq!(group_id("canary", GROUP), Some(990));
        assert_eq!(group_id("990", GROUP), Some(990));
        assert_eq!(group_id("nobody", GROUP), None);
    }
}
