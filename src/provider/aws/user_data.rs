//! The user data with which cloud-init sets up a new host at its first boot.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{inventory::HostName, secret::Secret, workspace::Launch};

/// EC2's limit, in bytes before base64.
#[cfg(test)]
const LIMIT: usize = 16 * 1024;

/// The work of the unit pgherd-metadata-guard until that unit exists. networkd removes rules that are not its
/// own, except those that are marked as the kernel's.
const GUARD: &str = "ip -d rule | grep -q '169.254.169.254 .*prohibit proto kernel' || \
                     ip rule add pref 100 to 169.254.169.254/32 uidrange 1-4294967294 prohibit protocol kernel";

/// The user data of one host, in base64 as EC2 needs it.
pub(super) fn render(launch: &Launch, host: &HostName, user: &str, port: u16) -> Secret {
    Secret::new(BASE64_STANDARD.encode(document(launch, host, user, port)))
}

/// A `#cloud-config` document.
///
/// The user data has the host's private key, and any process on the host could read it from the metadata
/// service. So only root may talk to that service, from the first boot on and after every boot.
fn document(launch: &Launch, host: &HostName, user: &str, port: u16) -> String {
    let private: String = launch
        .private_key
        .expose()
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let mut text = format!(
        "#cloud-config\n\
         hostname: {host}\n\
         ssh_pwauth: false\n\
         ssh_deletekeys: true\n\
         ssh_keys:\n  \
           ed25519_private: |\n{private}  \
           ed25519_public: {public}\n\
         bootcmd:\n  \
           - {GUARD}\n",
        public = launch.public_key,
    );
    match user {
        "ubuntu" => {}
        "root" => text.push_str("disable_root: false\n"),
        // Its other settings are those of the image's default user.
        other => text.push_str(&format!("user:\n  name: {other}\n")),
    }
    if port != 22 {
        text.push_str(&format!(
            "write_files:\n  \
               - path: /etc/ssh/sshd_config.d/20-pgherd-port.conf\n    \
                 content: |\n      Port {port}\n\
             runcmd:\n  \
               - [systemctl, daemon-reload]\n  \
               - [sh, -c, 'systemctl restart ssh.socket 2>/dev/null; systemctl restart ssh']\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn launch() -> Launch {
        Launch {
            token: "0".repeat(32),
            private_key: Secret::new("-----BEGIN\nabc\n-----END\n"),
            public_key: "ssh-ed25519 AAAA".into(),
        }
    }

    fn parsed(user: &str, port: u16) -> Value {
        let text = document(&launch(), &HostName::new("node1"), user, port);
        assert!(text.starts_with("#cloud-config\n"));
        assert!(text.len() < LIMIT);
        serde_yaml::from_str(&text).unwrap()
    }

    #[test]
    fn the_host_key_is_handed_over_whole() {
        let data = parsed("ubuntu", 22);
        assert_eq!(
            data["ssh_keys"]["ed25519_private"],
            "-----BEGIN\nabc\n-----END\n"
        );
        assert_eq!(data["ssh_keys"]["ed25519_public"], "ssh-ed25519 AAAA");
        assert_eq!(data["ssh_pwauth"], false);
        assert_eq!(data["hostname"], "node1");
        assert_eq!(data["bootcmd"], serde_json::json!([GUARD]));
        let unit =
            include_str!("../../../templates/etc/systemd/system/pgherd-metadata-guard.service");
        assert!(unit.contains(&GUARD.replace('\'', "\"")), "{unit}");
        assert!(data.get("user").is_none() && data.get("runcmd").is_none());
    }

    #[test]
    fn another_user_and_port_are_made() {
        let data = parsed("admin", 2222);
        assert_eq!(data["user"]["name"], "admin");
        assert_eq!(data["write_files"][0]["content"], "Port 2222\n");
        assert_eq!(parsed("root", 22)["disable_root"], false);
    }
}
