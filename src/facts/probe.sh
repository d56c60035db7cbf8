# shellcheck disable=SC1091,SC2086,SC2154 # lists of plain words are split on purpose; $shown comes from belongings.sh
# shellcheck disable=SC2010,SC2012 # the names in these folders have no special characters
# Reads a host's facts in one round trip and changes nothing. Each line is one fact: a key and fields, with tabs
# between them. A value that may contain a blank or a newline is in base64.
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
fact() { k=$1; shift; printf '%s' "$k"; for f in "$@"; do printf '\t%s' "$f"; done; printf '\n'; }
b64() { base64 -w0 2>/dev/null; }

fact version 1
. /etc/os-release 2>/dev/null
fact os "${ID:-unknown}" "${VERSION_ID:-}" "${VERSION_CODENAME:-}" "${PRETTY_NAME:-}"
fact arch "$(uname -m)"
# Counts the cores without starting a process.
n=0
while read -r l _; do
  case $l in cpu) ;; cpu*) n=$((n + 1)) ;; *) break ;; esac
done </proc/stat
fact cores "$n"
fact clock "$(date +%s%N)"
# Identifies the running system, whatever its name and addresses. No two systems are the same, even containers of
# one kernel.
b=
read -r b 2>/dev/null </proc/sys/kernel/random/boot_id
n=$(readlink /proc/1/ns/pid 2>/dev/null)
[ -z "$b" ] || [ -z "$n" ] || fact identity "$b $n"
read -r c </proc/1/comm
[ "$c" = systemd ] && fact systemd yes

one_file() {
  stat --printf 'file\t%n\t%U\t%G\t%a\t' "$1"
  b64 <"$1"
  echo
}
# Reads all files at once: first the owner and length of each, then the content of all. If a file changed in
# between, it tries again. If that goes on, it reads each file by itself.
regular=
for f in $FILES; do
  if [ -L "$f" ] || { [ -e "$f" ] && [ ! -f "$f" ]; }; then
    [ ! -e "$f" ] || one_file "$f"
  elif [ -f "$f" ]; then
    regular="$regular $f"
  fi
done
if [ -n "$regular" ]; then
  lengths() { stat --printf 'length\t%n\t%U\t%G\t%a\t%s\t%y\n' $regular 2>&1; }
  after=$(lengths)
  for f in 1 2 3; do
    before=$after
    c=$(cat $regular 2>/dev/null | b64)
    after=$(lengths)
    [ "$before" != "$after" ] || break
  done
  if [ "$before" = "$after" ]; then
    printf '%s\ncontents\t%s\n' "$before" "$c"
  else
    for f in $regular; do
      [ ! -e "$f" ] || one_file "$f"
    done
  fi
fi

while IFS= read -r l; do
  case $l in
    '') fact unit-end ;;
    *) fact unit "${l%%=*}" "${l#*=}" ;;
  esac
done <<SHOWN
$shown
SHOWN
fact unit-end

# A container sees the watchdog of its machine, which is not its own.
if [ -n "$DATA_DIR" ] && [ -c /dev/watchdog ] && ! systemd-detect-virt --quiet --container; then
  w=idle
  for p in $(systemctl show -p MainPID --value patroni.service 2>/dev/null); do
    ls -l "/proc/$p/fd" 2>/dev/null | grep -q '/dev/watchdog' && w=armed
  done
  fact watchdog "$w"
fi

for f in /run/pgherd/pending/*; do
  [ -e "$f" ] && fact pending "${f##*/}" "$(cat "$f")"
done
if [ -r "$OLD_SESSIONS" ]; then
  while IFS= read -r l; do fact old-sessions "$l"; done <"$OLD_SESSIONS"
fi
# Sets $word to the first line of a file, without starting a process.
first_line() {
  word=
  [ ! -r "$1" ] || IFS= read -r word <"$1" || true
}
first_line /opt/patroni/.pgherd
[ -z "$word" ] || fact patroni-stamp "$word"
# Sets $count to the number of its arguments that exist, also as broken links.
counted() {
  count=0
  for f in "$@"; do
    case ${f##*/} in . | ..) continue ;; esac
    if [ -e "$f" ] || [ -L "$f" ]; then count=$((count + 1)); fi
  done
}

# Sets $newest to the path of this program in the newest PostgreSQL that is installed, or to nothing.
newest() {
  newest='' most=0
  for f in /usr/lib/postgresql/*/bin/"$1"; do
    v=${f#/usr/lib/postgresql/}
    v=${v%%/*}
    v=${v%%.*}
    case $v in '' | *[!0-9]*) continue ;; esac
    if [ -x "$f" ] && [ "$v" -ge "$most" ]; then newest=$f most=$v; fi
  done
}
if [ -n "$DATA_DIR" ] && [ -d "$DATA_DIR" ]; then
  counted "$DATA_DIR"/* "$DATA_DIR"/.*
  first_line "$DATA_DIR/PG_VERSION"
  fact data "$(stat -c '%U' "$DATA_DIR")" "$count" "$word"
  # Another version may read only a part of it.
  c=/usr/lib/postgresql/$word/bin/pg_controldata
  if [ -z "$word" ] || [ ! -x "$c" ]; then
    newest pg_controldata
    c=$newest
  fi
  # initdb makes three databases, the last one right before it ends.
  counted "$DATA_DIR"/base/[0-9]*
  fact bases "$count"
  [ -e "$DATA_DIR/global/pg_control" ] && fact pg-control yes
  [ -e "$DATA_DIR/postmaster.opts" ] && fact has-run yes
  if [ -n "$c" ] && [ -e "$DATA_DIR/global/pg_control" ]; then
    "$c" -D "$DATA_DIR" 2>/dev/null | sed -n \
      's/^Database system identifier: */system-id\t/p; s/^Time of latest checkpoint: */checkpoint\t/p
       s/^Database cluster state: */data-state\t/p; s/^Latest checkpoint.s TimeLineID: */data-timeline\t/p
       s/^Latest checkpoint location: */data-position\t/p; s/^Minimum recovery ending location: */data-position\t/p
       s/^Min recovery ending loc.s timeline: */data-timeline\t/p'
  fi
  # A new leader has the history of its timeline before its first checkpoint on it.
  h=
  for f in "$DATA_DIR"/pg_wal/[0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F][0-9A-F].history; do
    [ ! -e "$f" ] || h=${f##*/}
  done
  [ -z "$h" ] || fact data-timeline "$((0x${h%.history}))"
  [ ! -e "$DATA_DIR/postmaster.opts" ] && never_started "$DATA_DIR" && fact never-started yes
fi
if [ -n "$DATA_DIR" ]; then
  for l in "$DATA_DIR/pg_wal" "$DATA_DIR"/pg_tblspc/*; do
    [ ! -L "$l" ] || fact data-outside "$(readlink -f "$l")"
  done
fi
# This file names the database that Patroni was configured for.
if [ -n "$DATA_DIR" ] && [ -r /etc/patroni.yml ]; then fact patroni-config "$(b64 </etc/patroni.yml)"; fi
if [ -n "$DATA_DIR" ] && [ -e "$DATA_DIR.pgherd" ]; then
  first_line "$DATA_DIR.pgherd"
  fact data-marker "$word"
fi
[ -n "$DATA_DIR" ] && grep -qsxE 'initdb|pg_basebackup' /proc/[0-9]*/comm && fact data-at-work yes
# A started etcd belongs to no store until it has its log.
[ -n "$ETCD_DIR" ] && [ -d "$ETCD_DIR/member/wal" ] && fact etcd-data "$ETCD_DIR"
# The second record names the store and the member.
for l in ${ETCD_DIR:+"$ETCD_DIR"/member/wal/*.wal}; do
  [ -f "$l" ] && fact etcd-log "$(head -c 64 "$l" | b64)"
  break
done

# Sets $unit to the service or scope in which a process runs.
unit_of() {
  unit=
  while IFS= read -r g; do
    while [ -n "$g" ]; do
      case ${g##*/} in
        *.service | *.scope)
          unit=${g##*/}
          return ;;
      esac
      case $g in
        */*) g=${g%/*} ;;
        *) g= ;;
      esac
    done
  done 2>/dev/null <"/proc/$1/cgroup"
}
if command -v ss >/dev/null; then
  ss -ltnpH 2>/dev/null | while read -r _ _ _ local _ users; do
    p=${local##*:}
    case " $PORTS " in
      *" $p "*)
        pid=${users#*pid=}
        pid=${pid%%,*}
        case $pid in
          ''|*[!0-9]*) fact listener "$p" '' '' '' ;;
          *)
            c=''
            read -r c 2>/dev/null <"/proc/$pid/comm"
            unit_of "$pid"
            fact listener "$p" "$pid" "$c" "$unit" ;;
        esac ;;
    esac
  done
fi

if [ -n "$DB_ROLES" ] && [ -e "$DATA_DIR/postmaster.pid" ]; then
  newest psql
  p=$newest
  if [ -n "$p" ]; then
    ask() {
      d=$1
      shift
      (cd / && PGOPTIONS=$PG_SESSION PGCONNECT_TIMEOUT=2 setpriv --reuid=postgres --regid=postgres --init-groups \
        "$p" -h /var/run/postgresql -p "$PG_PORT" -U postgres -d "$d" -AtqX -F '	' "$@")
    }
    said=$(ask postgres -c "
select 'role', rolname, rolsuper::text, rolreplication::text, rolcanlogin::text, coalesce(rolpassword, '') from pg_authid where rolname in ($DB_ROLES)
union all select 'recovery', pg_is_in_recovery()::text, null, null, null, null
union all select 'member', u.rolname, r.rolname, null, null, null from pg_auth_members m join pg_roles u on u.oid = m.member join pg_roles r on r.oid = m.roleid where u.rolname in ($DB_ROLES) and r.rolname !~ '[[:cntrl:]]'
union all select 'database', datname, pg_get_userbyid(datdba), null, null, null from pg_database where datname in ($DATABASES)
union all select 'flaw', rolname, 'expired', null, null, null from pg_authid where rolname in ($DB_ROLES) and rolvaliduntil < now()
union all select 'flaw', rolname, 'connections', rolconnlimit::text, null, null from pg_authid where rolname in ($DB_ROLES) and rolconnlimit >= 0
union all select 'flaw', r.rolname, 'setting', split_part(c.item, '=', 1), null, null from pg_db_role_setting s join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) as c(item) where r.rolname in ($DB_ROLES) and s.setdatabase = 0
union all select 'flaw', rolname, 'functions', null, null, null from pg_roles where rolname = 'rewind' and not (
  has_function_privilege(oid, 'pg_ls_dir(text, boolean, boolean)', 'execute') and has_function_privilege(oid, 'pg_stat_file(text, boolean)', 'execute')
  and has_function_privilege(oid, 'pg_read_binary_file(text)', 'execute') and has_function_privilege(oid, 'pg_read_binary_file(text, bigint, bigint, boolean)', 'execute'))" 2>/dev/null)
    if [ -n "$said" ]; then
      printf '%s\n' "$said"
    else
      # A superuser that may not log in, or does not exist, is not the same as a database that is still starting.
      case $(ask postgres -c "select" 2>&1) in
        *'is not permitted to log in'*) fact superuser-lost no-login ;;
        *'role "postgres" does not exist'*) fact superuser-lost gone ;;
      esac
    fi
    # Each database has its own schema public, which new databases copy from template1. One psql connects to all of
    # them in turn. It ends at the first that it cannot reach; then each database gets its own psql.
    if ! s=$(printf '%s\n' "$SCHEMAS" | ask postgres -f - 2>/dev/null); then
      eval "set -- $CONNECTIONS"
      s=$(for d in "$@"; do ask "$d" -c "$SCHEMA" 2>/dev/null; done)
    fi
    printf '%s\n' "$s"
  fi
fi
