# Has PostgreSQL $VERSION try the parameters in $CONF before a database exists. It reads them, allocates the memory
# and semaphores that they need, and ends. initdb does the same to find out what a machine allows; the folders are
# those that it has by then.
try_conf() {
  # shellcheck disable=SC2016 # $0 is for that shell
  printf '%s' "$1" | setpriv --reuid=postgres --regid=postgres --init-groups sh -c 'umask 077; cat >"$0"' "$trial/postgresql.conf"
  check=--check
  [ "$VERSION" -ge 15 ] || check='--boot -x0'
  # shellcheck disable=SC2086 # two words for older versions
  (cd "$trial" && setpriv --reuid=postgres --regid=postgres --init-groups \
    "/usr/lib/postgresql/$VERSION/bin/postgres" $check -D "$trial") </dev/null 2>&1
}

try_parameters() {
  # Only root may enter /run/pgherd.
  trial=$(mktemp -d /run/pgherd-trial.XXXXXX)
  for d in base/1 global pg_commit_ts pg_dynshmem pg_logical pg_multixact/members pg_multixact/offsets \
    pg_notify pg_replslot pg_serial pg_snapshots pg_stat pg_stat_tmp pg_subtrans pg_tblspc pg_twophase \
    pg_wal/archive_status pg_xact; do
    mkdir -p "$trial/$d"
  done
  printf '%s\n' "$VERSION" >"$trial/PG_VERSION"
  : >"$trial/postgresql.auto.conf"
  : >"$trial/postgresql.conf"
  chmod 0700 "$trial"
  chown -R postgres:postgres "$trial"
  said=
  failed=
  if ! said=$(try_conf "$CONF"); then
    # If it also fails without them, the parameters are not the cause.
    try_conf '' >/dev/null && failed=yes
  fi
  for library in $LIBRARIES; do
    case $library in
      /*) file=$library ;;
      *) file=/usr/lib/postgresql/$VERSION/lib/${library#\$libdir/} ;;
    esac
    if [ ! -e "$file" ] && [ ! -e "$file.so" ]; then
      failed=yes
      said="$said
FATAL:  shared_preload_libraries names \"$library\", and there is no $file.so"
    fi
  done
  rm -rf "$trial"
  [ -n "$failed" ] || return 0
  echo 'PostgreSQL cannot start with its parameters; no database was made here:' >&2
  printf '%s\n' "$said" | sed "s,$trial/,," >&2
  echo 'pgherd-hint: put postgresql.parameters right in the inventory, and run the same command again' >&2
  exit 68
}
