# shellcheck disable=SC2086 # the list of packages is split on purpose
# Prepares for apt, which `apt` calls from then on: no package may start or restart a service until the script ends.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l
policy=/usr/sbin/policy-rc.d
restore() {
  if [ -e "$policy.pgherd-saved" ] || [ -L "$policy.pgherd-saved" ]; then mv -f "$policy.pgherd-saved" "$policy"; else rm -f "$policy"; fi
}

# At a host's first boot, cloud-init may still be about to install packages, and would then hold apt's locks. It
# does so in its last stage, after everything else at boot. If the user data are pgherd's own ($OWN_BOOT), that
# stage is empty.
boot_stages='cloud-init-local cloud-init-network cloud-init cloud-config'
[ -n "$OWN_BOOT" ] || boot_stages="$boot_stages cloud-final"
booting() {
  boot_jobs=$(systemctl list-jobs --no-legend --plain 2>/dev/null)
  for boot_stage in $boot_stages; do
    case $boot_jobs in *" $boot_stage.service "*) return 0 ;; esac
  done
  return 1
}
boot_waited=0
while booting && [ "$boot_waited" -lt 600 ]; do
  [ "$boot_waited" -gt 0 ] || echo "waiting for cloud-init ($boot_stage)"
  boot_waited=$((boot_waited + 1))
  sleep 0.5
done
# The process that holds a lock now may have services to start.
await_locks

if { [ -e "$policy" ] || [ -L "$policy" ]; } && ! grep -qs '^# pgherd: no service starts' "$policy"; then mv -f "$policy" "$policy.pgherd-saved"; fi
trap restore EXIT
printf '#!/bin/sh\n# pgherd: no service starts while packages are installed\nexit 101\n' >"$policy"
chmod 755 "$policy"

# An interrupted run may have left packages half configured, or a journal of dpkg. A package of the user's that
# cannot be configured must not end the run: pgherd's packages may install all the same.
if [ -n "$(dpkg --audit 2>/dev/null)" ] || [ -n "$(find /var/lib/dpkg/updates -name '[0-9]*' 2>/dev/null)" ]; then
  with_locks dpkg --configure -a || echo 'dpkg cannot configure every package that is there (see above); going on'
fi
# Whether all packages are installed and configured.
all_there() {
  for p in $PACKAGES; do
    dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || return 1
  done
}
# Packages that dpkg has not finished.
unfinished() {
  dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null |
    sed -n 's/^\(half-installed\|unpacked\|half-configured\|triggers-[a-z]*\) //p' | tr '\n' ' '
}

apt() {
  with_locks apt-get -q -y -o DPkg::Lock::Timeout=60 -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    -o Dpkg::Options::=--force-unsafe-io "$@"
}
