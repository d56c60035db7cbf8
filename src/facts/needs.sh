# shellcheck shell=sh disable=SC2046,SC2086 # lists of plain words are split on purpose
# shellcheck disable=SC2016,SC2154 # fields of dpkg and apt are no variables; the probe sets those of PG
# What a host offers: folders, space, memory, package sources. It is part of the probe.
fact system "$(systemctl is-system-running 2>/dev/null)"

# How many sessions sshd allows on one connection; `Match` blocks are not considered.
fact sessions "$(timeout 5 sshd -T 2>/dev/null | sed -n 's/^maxsessions //p')"

# The folders and all their parents. `passable` is what the user postgres can enter, if that user exists.
levels=
levels_of() {
  d=$1
  while [ -n "$d" ]; do
    [ ! -e "$d" ] || levels="$levels $d"
    d=${d%/*}
  done
}
[ -z "$NEEDS_DATA" ] || levels_of "$DATA_DIR"
above=$levels
[ -z "$NEEDS_ETCD" ] || levels_of "$ETCD_DIR"
[ -z "$FOLDERS$levels" ] || stat -L --printf 'folder\t%n\t%U\t%G\t%a\t%F\n' $FOLDERS $levels 2>/dev/null
# Prints nothing if there is no such user.
if [ -n "$above" ]; then
  (cd / && setpriv --reuid=postgres --regid=postgres --init-groups sh -c '
    for d in "$@"; do
      if test -x "$d"; then p=yes; else p=no; fi
      printf "passable\t%s\t%s\n" "$d" "$p"
    done' sh $above) 2>/dev/null
fi
# Everybody must be able to read Patroni's files; the first one that is not readable is enough. The bytecode of
# Python is only a cache, into which root's own calls write.
if [ -e /opt/patroni/.pgherd ]; then
  fact venv-closed "$(find /opt/patroni -name __pycache__ -prune -o \( -type d ! -perm -005 -o -type f ! -perm -004 -o ! -user root \) -print -quit 2>/dev/null)"
fi

# The filesystems of all these paths, or of their nearest existing parents, at once. A filesystem that does not
# answer, such as that of a dead NFS server, makes `df` hang; then each one is asked by itself.
nl='
'
places="etc /etc${nl}usr /usr${nl}state /var/lib/dpkg${nl}cache /var/cache/apt/archives${nl}log /var/log${nl}tmp /tmp${nl}venv /opt/patroni"
if [ -n "$NEEDS_DATA" ]; then
  places="$places${nl}data $DATA_DIR"
  [ ! -d "$DATA_DIR/pg_wal" ] || places="$places${nl}wal $(readlink -f "$DATA_DIR/pg_wal")"
  for t in "$DATA_DIR"/pg_tblspc/*; do
    [ ! -L "$t" ] || places="$places${nl}tablespace-${t##*/} $(readlink -f "$t")"
  done
fi
[ -z "$NEEDS_ETCD" ] || places="$places${nl}etcd $ETCD_DIR"
set --
while read -r _ d; do
  while [ ! -e "$d" ] && [ "$d" != / ]; do d=${d%/*}; d=${d:-/}; done
  set -- "$@" "$d"
done <<PLACES
$places
PLACES
free() { timeout 5 df -k --output=used,avail,itotal,iavail,fstype,target "$@" 2>/dev/null; }
if rows=$(free "$@"); then
  rows=${rows#*"$nl"}
else
  rows=
  for d in "$@"; do
    s=$(free "$d")
    rows="$rows${s##*"$nl"}$nl"
  done
fi
while read -r p d <&3 && IFS= read -r s <&4; do
  [ -z "$s" ] || fact space "$p" "$d" "$s"
done 3<<PLACES 4<<ROWS
$places
PLACES
$rows
ROWS
# The mount options of those filesystems, as the kernel lists them. This starts no process.
while read -r _ _ device _ target options rest; do
  case $rows$nl in
    *" $target$nl"*) ;;
    # The kernel writes a blank as \040.
    *) case $target in *\\*) ;; *) continue ;; esac ;;
  esac
  # A partition has no queue of its own.
  r=
  for f in "/sys/dev/block/$device/queue/rotational" "/sys/dev/block/$device/../queue/rotational"; do
    [ -n "$r" ] || [ ! -r "$f" ] || read -r r <"$f"
  done
  fact mount "$target" "$options,${rest##* }" "$r"
done </proc/self/mountinfo

while read -r k v _; do
  case $k in
    MemTotal: | CommitLimit: | Committed_AS: | HugePages_Total: | Hugepagesize:) fact memory "${k%:}" "$v" ;;
  esac
done </proc/meminfo
v=
read -r v 2>/dev/null </proc/sys/vm/overcommit_memory
fact memory overcommit "$v"
# With version 1 of control groups, no limit is a number that no memory has.
for f in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
  v=
  [ ! -r "$f" ] || read -r v <"$f"
  [ -z "$v" ] || fact memory cgroup "$v"
done
# A container without a limit sees the memory of its machine, which others use too.
[ ! -e /run/systemd/container ] || fact memory container 1

# A URI without a name and password.
bare() {
  case $1 in
    *://*)
      a=${1#*://}
      h=${a%%/*}
      printf '%s://%s%s\n' "${1%%://*}" "${h##*@}" "${a#"$h"}" ;;
    *) printf '%s\n' "$1" ;;
  esac
}
# Whether a package server answers. This is only asked if a package is missing.
answers() {
  set -- "$1" "$(bare "$2")"
  case $2 in
    http://* | https://*) ;;
    *) fact source "$1" "$2" ok; return ;;
  esac
  h=${2#*://}; h=${h%%/*}
  case $2 in https://*) q=443 ;; *) q=80 ;; esac
  case $h in *:*) q=${h##*:}; h=${h%:*} ;; esac
  if ! timeout 5 getent ahosts "$h" >/dev/null; then s=unresolved
  elif timeout 5 bash -c ": 3<>/dev/tcp/$h/$q" 2>/dev/null; then s=ok
  else s=silent; fi
  printf 'source\t%s\t%s\t%s\n' "$1" "$2" "$s"
}
# apt lists only sources whose indexes are downloaded, so a new host has none.
configured() {
  sed -n 's/^[[:blank:]]*deb[[:blank:]]\{1,\}\(\[[^]]*\][[:blank:]]*\)\{0,1\}\([^[:blank:]]\{1,\}\).*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null
  # The last file may have no newline at its end.
  echo
  # In this format a line that begins with a blank continues a field, and a stanza can be disabled.
  for f in /etc/apt/sources.list.d/*.sources; do
    [ ! -r "$f" ] || { cat "$f"; echo; }
  done | awk '
    function end() { if (!off) printf "%s", uris; uris = ""; off = 0; inside = 0 }
    /^[ \t\r]*$/ { end(); next }
    /^#/ { next }
    { line = $0; low = tolower(line) }
    low ~ /^enabled:[ \t]*(no|false|off|0|without|disable)[ \t\r]*$/ { off = 1 }
    /^[^ \t]/ { inside = low ~ /^uris:/; sub(/^[^:]*:/, "", line) }
    inside { n = split(line, u, /[ \t\r]+/); for (i = 1; i <= n; i++) if (u[i] != "") uris = uris u[i] "\n" }
    END { end() }'
}
sources() {
  s=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null)
  for u in ${s:-$(configured)}; do
    case $u in
      # A file with the names of the servers, as in cloud images.
      mirror+file:*)
        f=${u#mirror+file:}
        sed -n 's/^[[:blank:]]*\([a-z]\{1,\}:[^[:blank:]]*\).*/\1/p' "/${f##/}" 2>/dev/null ;;
      *) echo "$u" ;;
    esac
  done | sort -u | head -n 20
}
missing=
for p in $WANTED; do
  # shellcheck disable=SC2027,SC2254 # each is a pattern
  case ${installed:-} in
    *" "$p" "*) ;;
    *) missing=yes ;;
  esac
done
if [ -n "$missing" ] && command -v apt-get >/dev/null; then
  if [ -z "${http_proxy:-}${https_proxy:-}${HTTP_PROXY:-}${HTTPS_PROXY:-}" ] &&
    ! apt-config dump 2>/dev/null | grep -qiE '^Acquire::(http|https)::Proxy[^ ]* "[^"]'; then
    for u in $(sources); do answers apt "$u" & done
  fi
fi
if [ -n "$VENV" ] && [ ! -e /opt/patroni/.pgherd ] && [ -z "${https_proxy:-}${HTTPS_PROXY:-}${PIP_PROXY:-}" ] &&
  ! grep -qsE '^ *proxy *=' /etc/pip.conf /root/.config/pip/pip.conf /root/.pip/pip.conf; then
  u=${PIP_INDEX_URL:-$(sed -n 's/^ *index-url *= *//p' /etc/pip.conf /root/.config/pip/pip.conf /root/.pip/pip.conf 2>/dev/null | tail -n 1)}
  # Without an index of its own, pip uses its default, and the download shows whether that answers.
  [ -z "$u" ] || answers python "$u" &
fi
wait
