# shellcheck disable=SC2086,SC2154 # lists are split on purpose; locks.sh has `lock_…`
# Removes from this host everything that only one host may have, so that an image can be made of it. pgherd's own
# files are removed, except packages and Patroni's venv.
# apt's daily jobs write their logs when they end. Running jobs may end, and no new ones start here. Their timers
# are back at the next boot.
systemctl stop apt-daily.timer apt-daily-upgrade.timer 2>/dev/null || true
while systemctl list-units --no-legend --state=active,activating apt-daily.service apt-daily-upgrade.service | grep -q .; do
  if [ "$(date +%s)" -ge "$lock_deadline" ]; then
    echo "apt's daily work has not ended within $lock_wait s" >&2
    exit 1
  fi
  sleep 1
done
for unit in $UNITS; do
  # Packages enable their units, and a host with one role must not start the others.
  systemctl disable --quiet --now "$unit.service" 2>/dev/null || true
done
rm -f $FILES
# Only folders that are empty now.
for folder in $FOLDERS; do rmdir "$folder" 2>/dev/null || true; done
rm -rf /etc/pgherd /var/lib/pgherd

with_locks apt-get clean
with_locks rm -rf /var/lib/apt/lists
mkdir -p /var/lib/apt/lists/partial
rm -f /var/cache/apt/*.bin /var/cache/debconf/*-old

# Keys that may log in, and the keys of the host. A package makes a key for tests (snakeoil), too.
getent passwd | cut -d: -f6 | sort -u | while read -r home; do
  case $home in / | '') continue ;; esac
  rm -rf "$home/.ssh" "$home/.cache" "$home/.bash_history" "$home/.lesshst" "$home/.python_history"
done
rm -f /etc/ssh/ssh_host_* /etc/ssh/sshd_config.d/20-pgherd-port.conf
find /etc/ssl/certs -lname '*snakeoil*' -delete
rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem

# The notes of the first boot: without them, cloud-init treats the next boot as the first.
if command -v cloud-init >/dev/null; then cloud-init clean --logs >/dev/null 2>&1 || true; fi
rm -rf /var/lib/cloud/instance /var/lib/cloud/instances /var/lib/cloud/data /var/lib/cloud/sem /var/lib/cloud/handlers
rm -f /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init /run/cloud-init/.instance-id
rm -f /etc/systemd/network/10-cloud-init-*
rm -rf /var/lib/dhcp/*.leases /var/lib/systemd/network

# The name and identity of the host. With an empty machine-id, the next boot makes a new one.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /var/lib/systemd/credential.secret
systemctl stop systemd-random-seed.service 2>/dev/null || true
rm -f /var/lib/systemd/random-seed
: >/etc/hostname
if [ -e /sbin/pgherd-init ]; then
  # A host of the lab. Its first process makes both anew if they are empty.
  : >/etc/hosts
  : >/etc/resolv.conf
fi

# Logs. From now on no log reaches the disk.
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' >/run/systemd/journald.conf.d/zz-pgherd.conf
systemctl restart systemd-journald.service || true
rm -rf /var/log/journal/*
find /var/log -type f -delete
find /tmp /var/tmp -xdev -mindepth 1 -delete 2>/dev/null || true
sync
