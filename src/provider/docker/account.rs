//! Users of a host, as its image has them.

use super::{archive, engine::Engine};
use crate::error::{Code, Error, Result};

/// A user of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) home: String,
}

/// Looks up `user` in the container's own `/etc/passwd`.
pub(super) async fn find(engine: &Engine, id: &str, user: &str) -> Result<Account> {
    let passwd = archive::read(engine, id, "/etc/passwd")
        .await?
        .unwrap_or_default();
    account_in(&passwd, user).ok_or_else(|| {
        Error::new(
            Code::ImageUnavailable,
            format!("the host's image has no user `{user}`"),
        )
        .hint("name a user of the image, who may use sudo without a password: ssh.user")
    })
}

fn account_in(passwd: &str, user: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        (name == user).then_some(())?;
        Some(Account {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nubuntu2:x:7:7::/x:/bin/sh\nubuntu:x:1000:1001:,,,:/home/ubuntu:/bin/bash\n";
        let account = account_in(passwd, "ubuntu").unwrap();
        assert_eq!((account.uid, account.gid), (1000, 1001));
        assert_eq!(account.home, "/home/ubuntu");
        assert_eq!(account_in(passwd, "admin"), None);
    }
}
