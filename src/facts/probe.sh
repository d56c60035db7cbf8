# shellcheck disable=SC1091,SC2086 # lists of plain words are split on purpose
# shellcheck disable=SC2010,SC2012 # none of these folders holds an odd name
# Reads a host's facts in one round trip and changes nothing. One fact a line: a key, a tab, fields
# between tabs; anything that could hold a blank or a newline is in base64.
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
fact() { k=$1; shift; printf '%s' "$k"; for f in "$@"; do printf '\t%s' "$f"; done; printf '\n'; }
b64() { base64 -w0 2>/dev/null; }

fact version 1
. /etc/os-release 2>/dev/null
fact os "${ID:-unknown}" "${VERSION_ID:-}" "${VERSION_CODENAME:-}" "$(printf '%s' "${PRETTY_NAME:-}" | b64)"
fact arch "$(uname -m)"
fact epoch "$(date +%s)"
fact clock "$(date +%s%N)"
# Which system this is, whatever its name and addresses: no two have the same, containers of one kernel neither.
b=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null) n=$(readlink /proc/1/ns/pid 2>/dev/null)
[ -z "$b" ] || [ -z "$n" ] || fact identity "$b $n"
[ "$(cat /proc/1/comm)" = systemd ] && fact systemd yes

dpkg-query -W -f 'package\t${Package}\t${db:Status-Status}\t${Version}\n' $PACKAGES 2>/dev/null

for f in $FILES; do
  if [ -e "$f" ]; then
    stat --printf 'file\t%n\t%U\t%G\t%a\t' "$f"
    b64 <"$f"
    echo
  fi
done

systemctl show -p Id,LoadState,ActiveState,SubState,UnitFileState,NRestarts,MainPID $UNITS 2>/dev/null |
  while IFS= read -r l; do
    case $l in
      '') fact unit-end ;;
      *) fact unit "${l%%=*}" "${l#*=}" ;;
    esac
  done
fact unit-end

# A container sees the watchdog of the machine that it runs on, which is not its own.
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
[ -r /opt/patroni/.pgherd ] && fact patroni-stamp "$(cat /opt/patroni/.pgherd)"

if [ -n "$DATA_DIR" ] && [ -d "$DATA_DIR" ]; then
  fact data "$(stat -c '%U' "$DATA_DIR")" "$(ls -A "$DATA_DIR" | wc -l)" "$(cat "$DATA_DIR/PG_VERSION" 2>/dev/null)"
  c=$(ls /usr/lib/postgresql/*/bin/pg_controldata 2>/dev/null | sort -V | tail -n 1)
  # initdb makes three databases, the last of them right before it is done.
  fact bases "$(ls "$DATA_DIR/base" 2>/dev/null | grep -c '^[0-9]')"
  [ -e "$DATA_DIR/global/pg_control" ] && fact pg-control yes
  [ -e "$DATA_DIR/postmaster.opts" ] && fact has-run yes
  if [ -n "$c" ] && [ -e "$DATA_DIR/global/pg_control" ]; then
    "$c" -D "$DATA_DIR" 2>/dev/null | sed -n \
      's/^Database system identifier: */system-id\t/p; s/^Time of latest checkpoint: */checkpoint\t/p
       s/^Database cluster state: */data-state\t/p; s/^Latest checkpoint.s TimeLineID: */data-timeline\t/p
       s/^Latest checkpoint location: */data-position\t/p; s/^Minimum recovery ending location: */data-position\t/p
       s/^Min recovery ending loc.s timeline: */data-timeline\t/p'
  fi
  # A leader's timeline is there before its first checkpoint on it.
  h=$(ls "$DATA_DIR/pg_wal" 2>/dev/null | grep '^[0-9A-F]\{8\}\.history$' | sort | tail -n 1)
  [ -z "$h" ] || fact data-timeline "$((0x${h%.history}))"
  never_started "$DATA_DIR" && fact never-started yes
fi
if [ -n "$DATA_DIR" ]; then
  for l in "$DATA_DIR/pg_wal" "$DATA_DIR"/pg_tblspc/*; do
    [ ! -L "$l" ] || fact data-outside "$(readlink -f "$l")"
  done
fi
# It names the database that Patroni was last told of.
if [ -n "$DATA_DIR" ] && [ -r /etc/patroni.yml ]; then fact patroni-config "$(b64 </etc/patroni.yml)"; fi
[ -n "$DATA_DIR" ] && [ -e "$DATA_DIR.pgherd" ] && fact data-marker "$(cat "$DATA_DIR.pgherd")"
[ -n "$DATA_DIR" ] && grep -qsxE 'initdb|pg_basebackup' /proc/[0-9]*/comm && fact data-at-work yes
[ -n "$ETCD_DIR" ] && [ -d "$ETCD_DIR/member" ] && fact etcd-data "$ETCD_DIR"

if command -v ss >/dev/null; then
  ss -ltnpH 2>/dev/null | while read -r _ _ _ local _ users; do
    p=${local##*:}
    case " $PORTS " in
      *" $p "*)
        pid=${users#*pid=}
        pid=${pid%%,*}
        case $pid in
          ''|*[!0-9]*) fact listener "$p" '' '' '' ;;
          *) fact listener "$p" "$pid" "$(cat "/proc/$pid/comm" 2>/dev/null)" \
               "$(sed -n 's,.*/\([^/]*\.\(service\|scope\)\).*,\1,p' "/proc/$pid/cgroup" 2>/dev/null | head -n 1)" ;;
        esac ;;
    esac
  done
fi

if [ -n "$DB_ROLES" ] && [ -e "$DATA_DIR/postmaster.pid" ]; then
  p=$(ls /usr/lib/postgresql/*/bin/psql 2>/dev/null | sort -V | tail -n 1)
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
      # A database that only starts is another thing than a superuser that may not log in.
      case $(ask postgres -c "select" 2>&1) in
        *'is not permitted to log in'*) fact superuser-lost no-login ;;
        *'role "postgres" does not exist'*) fact superuser-lost gone ;;
      esac
    fi
    # Each database has a schema public of its own, and new ones get that of template1.
    eval "set -- $CONNECTIONS"
    for d in "$@"; do
      ask "$d" -c "
select 'open-public', current_database() from pg_namespace n, aclexplode(n.nspacl) a
where n.nspname = 'public' and a.grantee = 0 and a.grantor = n.nspowner and a.privilege_type = 'CREATE'" 2>/dev/null
    done
  fi
fi
