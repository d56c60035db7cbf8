# shellcheck shell=sh disable=SC2046,SC2086 # lists of plain words are split on purpose
# shellcheck disable=SC2016,SC2154 # fields of dpkg and apt are no variables; PG's are the probe's
# What a host offers of what pgherd needs: folders, space, memory, package sources. Part of the probe.
fact system "$(systemctl is-system-running 2>/dev/null)"

# How many sessions sshd opens on one connection; what it says of `Match` blocks is not asked.
fact sessions "$(timeout 5 sshd -T 2>/dev/null | sed -n 's/^maxsessions //p')"

# A folder and all that it lies in, each as it is. `passable` is postgres's own word, once it is there.
folder() {
  d=$1
  while [ -n "$d" ]; do
    if [ -e "$d" ]; then
      p=
      if [ -n "$2" ]; then
        if (cd / && setpriv --reuid=postgres --regid=postgres --init-groups test -x "$d") 2>/dev/null; then p=yes; else p=no; fi
      fi
      stat -L --printf 'folder\t%n\t%U\t%G\t%a\t%F\t' "$d"
      printf '%s\n' "$p"
    fi
    d=${d%/*}
  done
}
[ -z "$FOLDERS" ] || stat -L --printf 'folder\t%n\t%U\t%G\t%a\t%F\t\n' $FOLDERS 2>/dev/null
if [ -n "$NEEDS_DATA" ]; then
  pg=
  if id postgres >/dev/null 2>&1; then pg=yes; fi
  folder "$DATA_DIR" "$pg"
fi
[ -z "$NEEDS_ETCD" ] || folder "$ETCD_DIR" ''
# Everybody must be able to read Patroni's own files; one that is closed stands for all.
# What Python keeps of what it has compiled is a matter of speed, and root's own calls write there.
if [ -e /opt/patroni/.pgherd ]; then
  fact venv-closed "$(find /opt/patroni -name __pycache__ -prune -o \( -type d ! -perm -005 -o -type f ! -perm -004 -o ! -user root \) -print -quit 2>/dev/null)"
fi

# The filesystem on which a path lies, or would lie.
nl='
'
space() {
  d=$2
  while [ ! -e "$d" ] && [ "$d" != / ]; do d=${d%/*}; d=${d:-/}; done
  s=$(timeout 5 df -k --output=used,avail,itotal,iavail,fstype,target "$d" 2>/dev/null)
  o=$(timeout 5 findmnt -n -r -o OPTIONS -T "$d" 2>/dev/null)
  s=${s##*"$nl"}
  # Numbers with blanks before and between them.
  [ -z "$s" ] || fact space "$1" "$2" "$(printf '%s' "$s" | b64)" "${o##*"$nl"}"
}
space etc /etc
space usr /usr
space state /var/lib/dpkg
space cache /var/cache/apt/archives
space log /var/log
space tmp /tmp
space venv /opt/patroni
if [ -n "$NEEDS_DATA" ]; then
  space data "$DATA_DIR"
  [ ! -d "$DATA_DIR/pg_wal" ] || space wal "$(readlink -f "$DATA_DIR/pg_wal")"
  for t in "$DATA_DIR"/pg_tblspc/*; do
    [ ! -L "$t" ] || space "tablespace-${t##*/}" "$(readlink -f "$t")"
  done
fi
[ -z "$NEEDS_ETCD" ] || space etcd "$ETCD_DIR"

while read -r k v _; do
  case $k in
    MemTotal: | CommitLimit: | Committed_AS: | HugePages_Total: | Hugepagesize:) fact memory "${k%:}" "$v" ;;
  esac
done </proc/meminfo
fact memory overcommit "$(cat /proc/sys/vm/overcommit_memory 2>/dev/null)"
fact memory cgroup "$(cat /sys/fs/cgroup/memory.max 2>/dev/null)"

dpkg-query -W -f 'held\t${db:Status-Want}\t${Package}\t${db:Status-Status}\n' $PACKAGES 2>/dev/null | grep '^held.hold.'

# A URI without the name and password that may be in it: they are nobody's business.
bare() {
  case $1 in
    *://*)
      a=${1#*://}
      h=${a%%/*}
      printf '%s://%s%s\n' "${1%%://*}" "${h##*@}" "${a#"$h"}" ;;
    *) printf '%s\n' "$1" ;;
  esac
}
# Whether a server of packages answers is only asked where something is missing.
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
# apt lists only the sources whose indexes it has downloaded, so that on a new host there are none.
configured() {
  sed -n 's/^[[:blank:]]*deb[[:blank:]]\{1,\}\(\[[^]]*\][[:blank:]]*\)\{0,1\}\([^[:blank:]]\{1,\}\).*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null
  # The last of them may end without an end of line.
  echo
  # In this form a field goes on where a line begins with a blank, and a stanza can be switched off.
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
      # A file that names the servers, as images of clouds have it.
      mirror+file:*)
        f=${u#mirror+file:}
        sed -n 's/^[[:blank:]]*\([a-z]\{1,\}:[^[:blank:]]*\).*/\1/p' "/${f##/}" 2>/dev/null ;;
      *) echo "$u" ;;
    esac
  done | sort -u | head -n 20
}
missing=
for p in $WANTED; do
  dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing=yes
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
  # Without one pip has its own, and the download is what tells.
  [ -z "$u" ] || answers python "$u" &
fi
wait
