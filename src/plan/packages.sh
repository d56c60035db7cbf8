# shellcheck disable=SC2086 # the list of packages is split on purpose
# Installs $PACKAGES and nothing that is only recommended. No package may start a service or make a
# cluster of its own: what runs is started later, with its config in place.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l
policy=/usr/sbin/policy-rc.d
restore() {
  if [ -e "$policy.pgherd-saved" ] || [ -L "$policy.pgherd-saved" ]; then mv -f "$policy.pgherd-saved" "$policy"; else rm -f "$policy"; fi
}

# A first boot may still be about to install its own packages; once it does, it has apt's locks. That is its
# last stage, which comes after everything else that boots; where the user data are pgherd's own ($OWN_BOOT),
# there is nothing in it.
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
# Whoever is at work now may have services to start.
await_locks

if { [ -e "$policy" ] || [ -L "$policy" ]; } && ! grep -qs '^# pgherd: no service starts' "$policy"; then mv -f "$policy" "$policy.pgherd-saved"; fi
trap restore EXIT
printf '#!/bin/sh\n# pgherd: no service starts while packages are installed\nexit 101\n' >"$policy"
chmod 755 "$policy"

# A run that was cut off may have left packages half configured, or dpkg's journal. A package of somebody
# else's that cannot be configured must not end the run: what is needed may come all the same.
if [ -n "$(dpkg --audit 2>/dev/null)" ] || [ -n "$(find /var/lib/dpkg/updates -name '[0-9]*' 2>/dev/null)" ]; then
  with_locks dpkg --configure -a || echo 'dpkg cannot configure every package that is there (see above); going on'
fi
# Whether all that is needed is there and configured.
all_there() {
  for p in $PACKAGES; do
    dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || return 1
  done
}
# Packages that dpkg has not brought to an end.
unfinished() {
  dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null |
    sed -n 's/^\(half-installed\|unpacked\|half-configured\|triggers-[a-z]*\) //p' | tr '\n' ' '
}

apt() {
  with_locks apt-get -q -y -o DPkg::Lock::Timeout=60 -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    -o Dpkg::Options::=--force-unsafe-io "$@"
}
# What the package sources do not have, or apt would not take from them (a pin).
unknown() {
  for p in $PACKAGES; do
    apt-cache policy "$p" 2>/dev/null | grep -q '^  Candidate: [^(]' || printf '%s ' "$p"
  done
}
# A source that is dead, or whose signature is not right, must not end the run while the others have
# all that is needed.
update() {
  updated=yes
  if apt update; then return; fi
  missing=$(unknown)
  if [ -z "$missing" ]; then
    echo 'not every package source can be used (see above); going on, since the others have what is needed'
  elif [ -z "$PGDG" ]; then
    echo "a package source cannot be used (see above), and the others do not have: $missing" >&2
    echo 'pgherd-hint: put the source right, or take it out of /etc/apt/sources.list.d' >&2
    exit 65
  fi
}
updated=
# Lists that are younger than an hour are new enough.
if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mmin -60 2>/dev/null | head -n 1)" ]; then update; fi

if [ -n "$PGDG" ]; then
  if ! [ -e /etc/apt/sources.list.d/pgdg.sources ] && ! [ -e /etc/apt/sources.list.d/pgdg.list ]; then
    apt install --no-install-recommends postgresql-common ca-certificates
    with_locks env YES=yes /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y
    updated=yes
  fi
fi

# What is about to come is noted before it comes, and what was there before the first run of all, so
# that 'down' knows what to take away, whatever happens in between.
mkdir -p /var/lib/pgherd
[ -e /var/lib/pgherd/packages.before ] || {
  dpkg-query -W -f '${Package}\n' | sort -u >/var/lib/pgherd/packages.new
  mv /var/lib/pgherd/packages.new /var/lib/pgherd/packages.before
}
note="sed 's,.*/,,;s/_.*//' >>/var/lib/pgherd/packages.brought"
install() { apt -o DPkg::Pre-Install-Pkgs::="$note" install --no-install-recommends "$@"; }

if ! install $PACKAGES; then
  others=$(unfinished)
  if all_there; then
    echo "apt has failed for ${others:-another package} (see above); going on, since all that is needed is there"
    exit
  fi
  if [ -n "$others" ]; then
    echo "pgherd-hint: dpkg does not bring these packages to an end: $others(look at it by hand: sudo dpkg --configure -a; or remove them: sudo apt-get purge PACKAGE)" >&2
  fi
  held=$(apt-mark showhold 2>/dev/null | tr '\n' ' ')
  if [ -n "$held" ]; then
    echo "pgherd-hint: these packages are held, and apt changes none of them: $held(release those that are in the way: sudo apt-mark unhold PACKAGE)" >&2
  fi
  # Lists that are a little old may name files that a mirror no longer has, or lack what is new.
  if [ -z "$updated" ]; then update; fi
  missing=$(unknown)
  if [ -z "$missing" ]; then install $PACKAGES; exit; fi
  echo "not in this host's package sources: $missing" >&2
  have=$(apt-cache pkgnames postgresql- | sed -n 's/^postgresql-\([0-9][0-9]*\)$/\1/p' | sort -n | tr '\n' ' ')
  case $missing in
    *postgresql-*)
      if [ -n "$have" ]; then
        echo "pgherd-hint: the sources have PostgreSQL ${have% }: write 'postgresql: { version: ${have%% *} }', or 'version: distro'" >&2
      fi
      echo "pgherd-hint: or take the PostgreSQL project's own packages: 'postgresql: { source: pgdg }'" >&2 ;;
    *etcd*) echo "pgherd-hint: on Ubuntu, etcd is in the 'universe' component: add it to the Components lines of /etc/apt/sources.list.d/ubuntu.sources" >&2 ;;
  esac
  exit 65
fi
