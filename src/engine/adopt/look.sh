# shellcheck disable=SC1091,SC2154 # the distribution has os-release; $SQL is set before
# Reads what somebody has set up on a host: Patroni, PostgreSQL, etcd and HAProxy. It changes nothing. Each line is a fact: a
# key and fields, with tabs between them; texts are in base64.
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
fact() { k=$1; shift; printf '%s' "$k"; for f in "$@"; do printf '\t%s' "$f"; done; printf '\n'; }
b64() { base64 -w0; }
words() { tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null; }

fact adoption 1
. /etc/os-release 2>/dev/null
fact os "${ID:-unknown}" "${VERSION_ID:-}" "${PRETTY_NAME:-}" "${VERSION_CODENAME:-}" "$(uname -m)"

# What an adoption that was cut off has noted, and what an earlier one, or pgherd itself, has made.
state=/var/lib/pgherd
[ ! -s $state/adopting ] || fact adopting "$(head -n 1 $state/adopting)"
[ ! -s $state/manifest ] || fact manifest "$(sed -n 's/^cluster\t//p' $state/manifest)"
[ ! -s /etc/pgherd/cluster ] || fact mark "$(sed -n 2p /etc/pgherd/cluster)"

# Sets $pid to the main process of a unit, or to nothing.
unit() {
  pid=$(systemctl show -p MainPID --value "$1.service" 2>/dev/null)
  [ "$pid" != 0 ] || pid=
  fact unit "$1" "$(systemctl is-active "$1.service" 2>/dev/null)" "$(systemctl is-enabled "$1.service" 2>/dev/null)" \
    "$(systemctl show -p FragmentPath --value "$1.service" 2>/dev/null)" \
    "$(systemctl show -p DropInPaths --value "$1.service" 2>/dev/null)"
}

unit patroni
config=
if [ -n "$pid" ]; then
  program=$(words "$pid" | sed -n '/patroni$/{p;q;}')
  config=$(words "$pid" | sed -n '/\.ya\{0,1\}ml$/{p;q;}')
  fact program "$program" "$(timeout 20 setpriv --reuid=postgres --regid=postgres --clear-groups "${program:-false}" --version 2>/dev/null |
    sed -n 's/^patroni //p')"
  tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | sed -n 's/^\(PATRONI_[A-Z0-9_]*\)=.*/variable\t\1/p'
else
  # Under a unit with another name, or none.
  for p in /proc/[0-9]*; do
    case $(tr '\0' ' ' 2>/dev/null <"$p/cmdline") in
      */patroni\ *) fact elsewhere "$(sed 's/.*\///' "$p/cgroup" 2>/dev/null | head -n 1)" ;;
    esac
  done
fi
if [ -f "$config" ]; then
  fact config "$config" "$(b64 <"$config")"
  # The value of a key in these lines, without quotes and comments.
  value() { sed -n "s/^[[:space:]]*$1:[[:space:]]*[\"']\{0,1\}\([^\"'#]*[^\"'#[:space:]]\).*/\1/p" | head -n 1; }
  data=$(value data_dir <"$config")
  rest=$(sed -n '/^restapi:/,/^[^[:space:]#]/p' "$config" | value connect_address)
  fact rest "$rest"
  for p in patroni config cluster; do
    fact answer $p "$(REST=$rest timeout 20 python3 - "$p" 2>/dev/null <<'PYTHON' | b64
import os, sys, urllib.request
ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.stdout.buffer.write(ask.open("http://%s/%s" % (os.environ["REST"], sys.argv[1]), timeout=5).read())
PYTHON
)"
  done
  if [ -r "$data/PG_VERSION" ]; then
    fact data "$data" "$(cat "$data/PG_VERSION")" "$(cat "$data.pgherd" 2>/dev/null)"
    if [ -r "$data/postmaster.pid" ]; then
      { read -r p; read -r _; read -r at; read -r port; read -r socket; } <"$data/postmaster.pid"
      fact postmaster "$p" "$at" "$port" "$socket"
      version=$(cat "$data/PG_VERSION")
      psql=/usr/lib/postgresql/$version/bin/psql
      [ -x "$psql" ] || psql=$(command -v psql)
      (cd / && PGCONNECT_TIMEOUT=5 timeout 30 setpriv --reuid=postgres --regid=postgres --init-groups \
        "$psql" -h "$socket" -p "$port" -U postgres -d postgres -AtqX -F '	' -c "$SQL" 2>/dev/null)
    fi
  fi
fi
for c in /etc/postgresql/*/*/postgresql.conf; do
  [ -e "$c" ] || continue
  c=${c%/postgresql.conf}
  n=${c##*/} v=${c%/*}
  fact own-cluster "${v##*/}" "$n" \
    "$(sed -n 's/^[[:space:]]*port[[:space:]]*=[[:space:]]*\([0-9][0-9]*\).*/\1/p' "$c/postgresql.conf" | tail -n 1)" \
    "$(sed -n 's/^\([a-z][a-z]*\).*/\1/p' "$c/start.conf" 2>/dev/null | tail -n 1)"
done

unit etcd
if [ -n "$pid" ]; then
  # How it was told to run: by its environment, and by its command line.
  tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep '^ETCD_' | while IFS= read -r l; do fact etcd "${l%%=*}" "${l#*=}"; done
  words "$pid" | tail -n +2 | while IFS= read -r l; do fact etcd-option "$l"; done
  fact etcd-version "$(etcd --version 2>/dev/null | sed -n 's/^etcd Version: //p')"
fi

unit haproxy
if [ -n "$pid" ]; then
  next=
  words "$pid" | while IFS= read -r w; do
    if [ -n "$next" ]; then
      if [ -d "$w" ]; then for f in "$w"/*.cfg; do fact proxies "$f" "$(b64 <"$f")"; done; else fact proxies "$w" "$(b64 <"$w")"; fi
      next=
    fi
    [ "$w" != -f ] || next=yes
  done
fi
fact end
