# shellcheck shell=sh disable=SC2154,SC2153,SC2086 # the caller sets them; some are several words
# Whether the new version can take the database over, while the old one serves: pg_upgrade's own check, and the schema
# of every database, restored into an empty database of the new version as pg_upgrade does.
if at checked && [ "$(version "$NEW")" = "$TO" ]; then
  echo 'it was checked before'
  exit 0
fi
sockets
trial=$NEW/trial
ended() {
  as_postgres "$bin/pg_ctl" -D "$NEW" -s -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$sockets"
}
trap ended EXIT
init_new
pg_upgrade --check $LINK -p "$PORT" || {
  echo "pg_upgrade --check refuses this database" >&2
  exit 1
}
begun=$(date +%s)
install -d -o postgres -g postgres -m 0700 "$trial"
as_postgres "$bin/pg_ctl" -D "$NEW" -s -w -t 300 -l "$trial/log" -o "-b -c listen_addresses= -c port=$PORT \
  -c unix_socket_directories=$sockets -c fsync=off -c full_page_writes=off $SERVER_OPTIONS" start || {
  tail -n 5 "$trial/log" >&2
  exit 1
}
refused() {
  grep -v '^$' "$trial/said" | tail -n 12 >&2
  echo "PostgreSQL $TO does not take over the schema of $1, as PostgreSQL $FROM has it" >&2
  echo "pgherd-hint: what it refuses is above; if it is unknown to PostgreSQL $TO, its packages may be older than those of PostgreSQL $FROM: take newer ones" >&2
  exit 1
}
at_old="-h /var/run/postgresql -p $PORT -U postgres"
at_new="-h $sockets -p $PORT -U postgres"
as_postgres "$bin/pg_dumpall" $at_old -l postgres --globals-only --quote-all-identifiers --binary-upgrade -f "$trial/globals" 2>"$trial/said" ||
  refused 'the roles'
as_postgres "$bin/psql" -qX -v ON_ERROR_STOP=1 $at_new -d template1 -f "$trial/globals" >"$trial/said" 2>&1 || refused 'the roles'
as_postgres "$bin/psql" -qXAt $at_old -d postgres -c "select 'dbname=''' || replace(replace(datname, '\\', '\\\\'), '''', '\\''') || '''', datname
  from pg_database where datallowconn order by datname <> 'template1', datname" -F '	' >"$trial/databases"
while IFS='	' read -r database name; do
  as_postgres "$bin/pg_dump" $at_old -d "$database" --schema-only --quote-all-identifiers --binary-upgrade -Fc -f "$trial/dump" \
    2>"$trial/said" </dev/null || refused "the database $name"
  clean='' from=template1
  case $name in
    template1) clean=--clean from=postgres ;;
    postgres) clean=--clean ;;
  esac
  as_postgres "$bin/pg_restore" $at_new --create $clean --exit-on-error -d "$from" "$trial/dump" >"$trial/said" 2>&1 </dev/null ||
    refused "the database $name"
done <"$trial/databases"
as_postgres "$bin/pg_ctl" -D "$NEW" -s -m immediate stop >/dev/null 2>&1 || true
echo "the schema of every database was taken over, in $(($(date +%s) - begun)) s"
init_new
note checked
