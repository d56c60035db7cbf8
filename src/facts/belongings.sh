# shellcheck disable=SC2016,SC2086,SC2153 # lists, which are set before, are split on purpose; fields are dpkg's
# What pgherd has taken on a host, and what exists that it would take. It changes nothing, runs before the probe,
# and prints facts of the same form.
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
state=/var/lib/pgherd
# Sets $k to what a path is, also if it is a broken link. Starting a process for each path would take most of the
# time of this script.
kind() {
  k=
  if [ -L "$1" ]; then k="link"
  elif [ -f "$1" ]; then k="file"
  elif [ -d "$1" ]; then k="folder"
  elif [ -e "$1" ]; then k="special"
  fi
}
# A folder that pgherd would make: what it is, and how many entries it has.
holds() {
  kind "$2"
  [ -n "$k" ] || return 0
  n=0
  for f in "$2"/* "$2"/.*; do
    case ${f##*/} in
      . | ..) ;;
      *) if [ -e "$f" ] || [ -L "$f" ]; then n=$((n + 1)); fi ;;
    esac
  done
  printf 'holds\t%s\t%s\t%s\n' "$1" "$k" "$n"
}

# What dpkg knows of these packages and systemd of these units. Both are asked once, for the whole probe. $installed
# becomes the list of installed packages.
tab='	'
installed=' '
while IFS=$tab read -r w p s v; do
  [ -n "$p" ] || continue
  printf 'package\t%s\t%s\t%s\n' "$p" "$s" "$v"
  [ "$w" != hold ] || printf 'held\t%s\t%s\nheld\thold\t%s\t%s\n' "$p" "$s" "$p" "$s"
  [ "$s" != installed ] || installed="$installed$p "
done <<PACKAGES
$(dpkg-query -W -f '${db:Status-Want}\t${Package}\t${db:Status-Status}\t${Version}\n' $PACKAGES 2>/dev/null)
PACKAGES
shown=$(systemctl show -p Id,FragmentPath,DropInPaths,LoadState,ActiveState,SubState,UnitFileState,NRestarts,MainPID $UNITS 2>/dev/null)

paths=$PATHS
if [ -f "$state/manifest" ]; then
  sed 's/^/manifest\t/' "$state/manifest"
  paths="$paths $(sed -n 's/^file\t//p' "$state/manifest")"
fi
files=
for p in $paths; do
  kind "$p"
  [ -n "$k" ] || continue
  printf 'there\t%s\t%s\n' "$p" "$k"
  [ "$k" != file ] || files="$files $p"
  kind "$state/kept$p"
  [ -z "$k" ] || printf 'kept\t%s\n' "$p"
done
# Config files that are identical to those of their packages.
if [ -n "$files" ]; then
  md5sum $files 2>/dev/null | sed 's/^\([0-9a-f]*\)  \(.*\)$/ \2 \1/' | grep -xFf - /var/lib/dpkg/status 2>/dev/null |
    while read -r p _; do printf 'default\t%s\n' "$p"; done
fi

holds patroni /opt/patroni
holds patroni-old /opt/patroni.old
if [ -n "$NEEDS_DATA" ]; then
  holds data "$DATA_DIR"
  holds failed "$DATA_DIR.failed"
fi
[ -z "$NEEDS_ETCD" ] || holds etcd "$ETCD_DIR"

# Each unit is a paragraph, and its name may be on any line of it.
unit_files() {
  for f in $found; do printf 'unit-file\t%s\t%s\n' "${u%.service}" "$f"; done
  found=
}
found=
while IFS= read -r l; do
  case $l in
    Id=*) u=${l#*=} ;;
    '') unit_files ;;
    FragmentPath=* | DropInPaths=*) found="$found ${l#*=}" ;;
  esac
done <<SHOWN
$shown
SHOWN
unit_files

# The clusters of Debian's own tools.
if [ -n "$NEEDS_DATA" ]; then
  for c in /etc/postgresql/*/*/postgresql.conf; do
    [ -e "$c" ] || continue
    c=${c%/postgresql.conf}
    n=${c##*/} v=${c%/*}
    v=${v##*/} r=no
    systemctl is-active --quiet "postgresql@$v-$n.service" && r=yes
    printf 'pg-cluster\t%s\t%s\t%s\t%s\t%s\n' "$v" "$n" \
      "$(sed -n 's/^[[:space:]]*port[[:space:]]*=[[:space:]]*\([0-9][0-9]*\).*/\1/p' "$c/postgresql.conf" | tail -n 1)" \
      "$(sed -n 's/^\([a-z][a-z]*\).*/\1/p' "$c/start.conf" 2>/dev/null | tail -n 1)" "$r"
  done
fi

p=/usr/sbin/policy-rc.d
kind "$p.pgherd-saved"
if [ -n "$k" ] || grep -qs '^# pgherd: no service starts' "$p"; then
  printf 'policy\tleft\n'
fi
