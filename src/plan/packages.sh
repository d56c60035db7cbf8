# Installs $PACKAGES and nothing that is only recommended. No package may start a service or make a
# cluster of its own: what runs is started later, with its config in place.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l
policy=/usr/sbin/policy-rc.d
restore() {
  if [ -e "$policy.pgherd-saved" ]; then mv -f "$policy.pgherd-saved" "$policy"; else rm -f "$policy"; fi
}
if [ -e "$policy" ] && ! grep -q 'pgherd' "$policy"; then mv -f "$policy" "$policy.pgherd-saved"; fi
trap restore EXIT
printf '#!/bin/sh\n# pgherd: no service starts while packages are installed\nexit 101\n' >"$policy"
chmod 755 "$policy"

# A first boot may still be installing its own packages.
if command -v cloud-init >/dev/null; then cloud-init status --wait >/dev/null 2>&1 || true; fi

# A run that was cut off may have left packages half configured.
if [ -n "$(dpkg --audit 2>/dev/null)" ]; then dpkg --configure -a; fi

apt() {
  apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    -o Dpkg::Options::=--force-unsafe-io "$@"
}
update() { apt update; updated=yes; }
updated=
# Lists that are younger than an hour are new enough.
if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mmin -60 2>/dev/null | head -n 1)" ]; then update; fi

if [ -n "$PGDG" ]; then
  if ! [ -e /etc/apt/sources.list.d/pgdg.sources ] && ! [ -e /etc/apt/sources.list.d/pgdg.list ]; then
    apt install --no-install-recommends postgresql-common ca-certificates
    YES=yes /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y
    updated=yes
  fi
fi

known() { apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }
absent() { for p in $PACKAGES; do known "$p" || printf '%s ' "$p"; done; }
missing=$(absent)
if [ -n "$missing" ] && [ -z "$updated" ]; then update; missing=$(absent); fi
if [ -n "$missing" ]; then
  echo "not in this host's package sources: $missing" >&2
  have=$(apt-cache pkgnames postgresql- | sed -n 's/^postgresql-\([0-9][0-9]*\)$/\1/p' | sort -n | tr '\n' ' ')
  case $missing in
    *postgresql-*)
      if [ -n "$have" ]; then
        echo "pgherd-hint: the sources have PostgreSQL ${have}: write 'postgresql: { version: ${have%% *} }', or 'version: distro'" >&2
      fi
      echo "pgherd-hint: or take the PostgreSQL project's own packages: 'postgresql: { source: pgdg }'" >&2 ;;
    *etcd*) echo "pgherd-hint: on Ubuntu, etcd is in the 'universe' component: enable it with 'add-apt-repository universe'" >&2 ;;
  esac
  exit 65
fi

# What is about to come is noted first, so that whatever happens 'down' knows what was not there.
mkdir -p /var/lib/pgherd
apt install --no-install-recommends -s $PACKAGES | sed -n 's/^Inst \([^ ]*\) .*/\1/p' >>/var/lib/pgherd/packages
# Downloads that broke off are tried again with new lists: a mirror may have moved on.
apt install --no-install-recommends $PACKAGES || { [ -z "$updated" ] && update && apt install --no-install-recommends $PACKAGES; }
