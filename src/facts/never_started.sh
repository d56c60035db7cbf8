# shellcheck disable=SC2010 # PostgreSQL itself names the files in these folders
# Whether `initdb` made the database in $1 and no server ever came up on it, so that nothing was ever
# committed. Each of these is a sign of the contrary: a server that comes up writes postmaster.opts, which
# stays; a copy of a leader brings a backup's files, or an old timeline, or a state other than initdb's;
# and whoever made a table has moved the counter of object ids past those of initdb.
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
