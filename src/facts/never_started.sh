# shellcheck disable=SC2010 # PostgreSQL itself names the files in these folders
# Whether `initdb` made the database in $1 and no server has ever started on it, so that nothing was ever committed.
# Each test looks for a sign of the contrary. A server that starts writes postmaster.opts, which stays. A copy of a
# leader has the files of a backup, an old timeline, or another state than initdb leaves. A new table moves the
# counter of object ids beyond those of initdb.
never_started() {
  pg=/usr/lib/postgresql/$(cat "$1/PG_VERSION" 2>/dev/null)/bin
  [ -x "$pg/pg_controldata" ] && [ -e "$1/global/pg_control" ] || return 1
  for f in postmaster.opts backup_label backup_label.old backup_manifest tablespace_map recovery.signal; do
    [ ! -e "$1/$f" ] || return 1
  done
  [ "$(ls "$1/base" | grep -c '^[0-9]')" = 3 ] || return 1
  [ "$(ls "$1/pg_wal" | grep -cE '^[0-9A-F]{24}$')" = 1 ] || return 1
  LC_ALL=C "$pg/pg_controldata" -D "$1" 2>/dev/null | awk -F ': +' '
    $1 == "Database cluster state" { state = $2 }
    $1 == "Latest checkpoint location" { at = $2 }
    $1 ~ /^Latest checkpoint.s TimeLineID$/ { timeline = $2 }
    $1 ~ /^Latest checkpoint.s NextOID$/ { oid = $2 }
    $1 == "Minimum recovery ending location" { recovered = $2 }
    END { exit !(state == "shut down" && timeline == 1 && oid > 0 && oid < 16384 && recovered == "0/0" && at ~ /^0\/1/ && length(at) == 9) }'
}
