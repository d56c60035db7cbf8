# shellcheck disable=SC2086 # the list of packages is split on purpose
# shellcheck disable=SC2154 # apt.sh comes first
# Installs $PACKAGES without recommended packages. No package may start a service or create a database cluster:
# services are started later, when their config is there.
# Packages that no source has, or that apt refuses because of a pin.
unknown() {
  for p in $PACKAGES; do
    apt-cache policy "$p" 2>/dev/null | grep -q '^  Candidate: [^(]' || printf '%s ' "$p"
  done
}
# A source that does not answer, or whose signature is wrong, must not end the run if the others have everything.
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

# What apt is about to install is noted before it is installed, and the packages from before pgherd's first run are
# noted, too. So 'down' knows what to remove, whatever happens in between.
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
  # Lists that are a little old may name files that a mirror no longer has, or lack new ones.
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
