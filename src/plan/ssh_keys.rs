//! The plans of `rotate ssh`: which keys a host accepts, and which key it shows.

use std::time::Duration;

use super::{Action, Change, Plan, Step};
use crate::{
    inventory::HostName,
    remote::{Script, quote},
};

const FUNCTIONS: &str = include_str!("ssh_keys.sh");

/// How long one host may take. A host may generate its own RSA key in this time.
const LIMIT: Duration = Duration::from_secs(60);

/// One of pgherd's public keys, as hosts know it.
#[derive(Debug, Clone, Copy)]
pub struct AccessKey<'a> {
    /// The user that SSH logs in as.
    pub user: &'a str,
    /// The key in base64, without its type and comment.
    pub blob: &'a str,
}

fn step(host: &HostName, name: &'static str, why: &str, change: &str, script: Script) -> Step {
    Step {
        host: host.clone(),
        name,
        why: why.into(),
        after: Vec::new(),
        changes: vec![Change::Other(change.into())],
        action: Action::Run(script),
        limit: LIMIT,
        units: Vec::new(),
    }
}

fn on_each<'a>(
    hosts: impl Iterator<Item = &'a HostName>,
    make: impl Fn(&HostName) -> Step,
) -> Plan {
    let mut plan = Plan::default();
    for host in hosts {
        plan.push(make(host));
    }
    plan
}

/// Makes every host accept the key `next` wherever it accepts `now`, with the same options.
pub fn add_access<'a>(
    hosts: impl Iterator<Item = &'a HostName>,
    now: AccessKey<'_>,
    next: AccessKey<'_>,
) -> Plan {
    let script = keys_script("add-ssh-key", now)
        .line(format!("NEXT={}", quote(next.blob)))
        .line(
            r#"known=
for f in $(key_files "$SSH_USER"); do
  line=$(lines_with "$KEY" "$f" | head -n 1) || true
  [ -n "$line" ] || continue
  known=yes
  if [ -n "$(lines_with "$NEXT" "$f")" ]; then continue; fi
  { cat "$f"; printf '%s\n' "$line" | sed "s|$KEY|$NEXT|"; } | replace "$f"
done
if [ -z "$known" ]; then
  echo "none of the files in which sshd looks for the keys of $SSH_USER holds the key that logs in now:" >&2
  key_files "$SSH_USER" >&2
  exit 68
fi"#,
        );
    on_each(hosts, |host| {
        step(
            host,
            "add-ssh-key",
            "the host must accept the new key before the old one is removed",
            "the new SSH key is accepted beside the old one",
            script.clone(),
        )
    })
}

/// Removes the key from every host, and ends the sessions that were opened with it.
///
/// `fingerprint` is what sshd logs of a key that logged in: `SHA256:…`.
pub fn remove_access<'a>(
    hosts: impl Iterator<Item = &'a HostName>,
    key: AccessKey<'_>,
    fingerprint: &str,
) -> Plan {
    let script = keys_script("remove-ssh-key", key)
        .line(format!("PRINT={}", quote(fingerprint)))
        .line(
            r#"for f in $(key_files "$SSH_USER") $(key_files root); do
  [ -n "$(lines_with "$KEY" "$f")" ] || continue
  grep -vF -- "$KEY" "$f" | replace "$f" || true
  if [ -n "$(lines_with "$KEY" "$f")" ]; then echo "$f still holds the old key" >&2; exit 69; fi
done
# A session outlives the key that opened it. Only root's lines count: anybody may write some that look like sshd's.
below() { for c in $(ps -o pid= --ppid "$1"); do below "$c"; echo "$c"; done; }
for p in $(journalctl -q --no-pager -o short _UID=0 -t sshd -t sshd-session -g 'Accepted publickey' 2>/dev/null |
  grep -F -- "$PRINT" | sed -n 's/.* sshd[a-z-]*\[\([0-9]*\)\]: .*/\1/p' | sort -u); do
  case $(cat "/proc/$p/comm" 2>/dev/null) in
    sshd*) ;;
    *) continue ;;
  esac
  all="$(below "$p") $p"
  case " $(echo $all) " in *" $$ "*) continue ;; esac
  echo "ending the SSH session of process $p, which the old key opened"
  kill -HUP $all 2>/dev/null || true
  kill $all 2>/dev/null || true
done"#,
        );
    on_each(hosts, |host| {
        step(
            host,
            "remove-ssh-key",
            "the old key must no longer work",
            "the old SSH key is no longer accepted, and its sessions end",
            script.clone(),
        )
    })
}

fn keys_script(name: &str, key: AccessKey<'_>) -> Script {
    Script::new()
        .alone(name)
        .line(FUNCTIONS)
        .line(format!("SSH_USER={}", quote(key.user)))
        .line(format!("KEY={}", quote(key.blob)))
}

/// Generates the host keys that a host will show, beside the present ones, and prints the public keys. A second
/// run prints the same ones.
pub fn next_host_keys() -> Script {
    Script::new().alone("next-host-keys").line(
        r#"for type in ed25519 ecdsa rsa; do
  key=/etc/ssh/ssh_host_${type}_key
  next=$key.pgherd-next
  [ -e "$key" ] || continue
  if ! [ -s "$next" ] || ! [ -s "$next.pub" ]; then
    rm -f "$next" "$next.pub"
    ssh-keygen -q -t "$type" -N '' -C '' -f "$next"
  fi
  cut -d ' ' -f 1,2 <"$next.pub"
done"#,
    )
}

/// Makes every host show the keys that [`next_host_keys`] has generated.
pub fn show_host_keys<'a>(hosts: impl Iterator<Item = &'a HostName>) -> Plan {
    let script = Script::new().alone("change-host-key").line(
        r#"for next in /etc/ssh/ssh_host_*_key.pgherd-next; do
  [ -s "$next" ] || continue
  key=${next%.pgherd-next}
  chown --reference="$key" "$next"
  chmod --reference="$key" "$next"
  [ ! -s "$next.pub" ] || mv -f "$next.pub" "$key.pub"
  mv -f "$next" "$key"
done
# Where a socket starts it, sshd may not run at all, and reads the keys at its next start.
systemctl try-reload-or-restart ssh 2>/dev/null || systemctl try-reload-or-restart sshd"#,
    );
    on_each(hosts, |host| {
        step(
            host,
            "change-host-key",
            "somebody with the old key could impersonate this host",
            "the host has new SSH keys",
            script.clone(),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// The scripts' own functions, working on a file in a folder.
    #[test]
    fn a_line_keeps_its_options_and_comments_count_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authorized_keys");
        let old = "from=\"10.0.0.0/8\" ssh-ed25519 OLD+/= me\n";
        fs::write(&file, format!("# ssh-ed25519 OLD+/= was mine\n{old}")).unwrap();
        let script = format!(
            "set -eu\n{FUNCTIONS}\nf={}\n\
             line=$(lines_with OLD+/= \"$f\")\n\
             {{ cat \"$f\"; printf '%s\\n' \"$line\" | sed 's|OLD+/=|NEW|'; }} | replace \"$f\"\n",
            file.display()
        );
        let status = Command::new("/bin/sh").args(["-c", &script]).status();
        assert!(status.unwrap().success());
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.ends_with(&format!("{old}from=\"10.0.0.0/8\" ssh-ed25519 NEW me\n")),
            "{text}"
        );
        assert!(!dir.path().join("authorized_keys.pgherd-new").exists());
    }

    #[test]
    fn each_host_has_a_step_and_no_secret_is_in_it() {
        let hosts = ["a", "b"].map(HostName::new);
        let now = AccessKey {
            user: "ubuntu",
            blob: "NOW",
        };
        let next = AccessKey {
            blob: "NEXT",
            ..now
        };
        for plan in [
            add_access(hosts.iter(), now, next),
            remove_access(hosts.iter(), now, "SHA256:x"),
            show_host_keys(hosts.iter()),
        ] {
            let on: Vec<&str> = plan.steps.iter().map(|it| it.host.as_str()).collect();
            assert_eq!(on, ["a", "b"]);
            assert!(plan.steps.iter().all(|it| it.after.is_empty()));
        }
    }
}
