# Functions that restore a database and start it where no client can reach it; as postgres, in bash.
# BIN, PORT, CONFIG, STANZA and LOG are set.
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /

# restore_to DIRECTORY OPTION...: pgBackRest's part.
restore_to() {
  local to=$1 cores
  shift
  cores=$(nproc)
  pgbackrest --config="$CONFIG" --stanza="$STANZA" --pg1-path="$to" --process-max=$((cores > 8 ? 8 : cores)) \
    --log-level-console=info "$@" restore
}

# ask DIRECTORY DATABASE SQL
ask() { "$BIN/psql" -qXAt -v ON_ERROR_STOP=1 -h "$1" -p "$PORT" -U postgres -d "$2" -c "$3"; }

# recover DIRECTORY OPTION...: returns when it accepts writes. Without hot standby it may have lower limits than the
# leader had, and accepts no connection before the end of recovery, of which pg_ctl knows nothing.
recover() {
  local data=$1 said
  shift
  rm -f "$LOG"
  "$BIN/pg_ctl" -D "$data" -s -w -t 86400 -l "$LOG" -o "-c listen_addresses= -c port=$PORT \
    -c unix_socket_directories=$data -c hot_standby=off -c ssl=off -c synchronous_standby_names= -c primary_conninfo= \
    -c logging_collector=off -c log_destination=stderr $*" start >/dev/null 2>&1 || true
  until ask "$data" postgres 'select 1' >/dev/null 2>&1; do
    sleep 0.2
    if ! "$BIN/pg_ctl" -D "$data" -s status >/dev/null 2>&1; then
      said=$(grep -E 'FATAL|PANIC' "$LOG" | grep -v -e 'not accepting connections' -e 'starting up' | tail -n 3 || true)
      echo "recovery failed: PostgreSQL's log says: ${said:-nothing}" >&2
      case $said in
        *'before configured recovery target was reached'*)
          echo 'pgherd-hint: the WAL in the repository ends before that moment, or some of it is missing: pgherd backups' >&2 ;;
      esac
      exit 1
    fi
  done
  grep -E 'recovery stopping|last completed transaction' "$LOG" | sed 's/.*LOG:  //' || true
}

stop() { "$BIN/pg_ctl" -D "$1" -s -w -t 3600 -m fast stop; }
