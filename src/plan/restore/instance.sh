# Functions that restore a database and start it where no client can reach it; as postgres, in bash.
# BIN, PORT, CONFIG, STANZA, REPOS (the numbers of the repositories, or nothing if there is one), LOG and MOST (how many
# processes) are set. systemd replaces what has braces after a dollar sign.
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /

# restore_to DIRECTORY OPTION...: pgBackRest's part. To PostgreSQL, any failure to get WAL is the end of all WAL, but for an
# exit code above 125: a repository that goes away meanwhile must not shorten what is restored. Of two, either may have what
# the other lacks.
restore_to() {
  local to=$1 cores get
  shift
  cores=$(nproc)
  get="pgbackrest --config=$CONFIG --stanza=$STANZA --pg1-path=$to"
  if [ -z "$REPOS" ]; then
    get="$get archive-get %f %p || { [ \$? -eq 1 ] && exit 1; exit 126; }"
  else
    get="code=1; for n in $REPOS; do $get --repo=\$n archive-get %f %p && exit 0; [ \$? -eq 1 ] || code=126; done; exit \$code"
  fi
  pgbackrest --config="$CONFIG" --stanza="$STANZA" --pg1-path="$to" --process-max=$((cores > MOST ? MOST : cores)) \
    --recovery-option="restore_command=$get" \
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
      [ -n "$said" ] || said=nothing
      echo "recovery failed: PostgreSQL's log says: $said" >&2
      case $said in
        *'before configured recovery target was reached'*)
          echo 'pgherd-hint: the WAL in the repository ends before that moment, or some of it is missing: pgherd backups' >&2 ;;
        *'could not restore file'*)
          echo 'pgherd-hint: the repository did not answer any more; the same command goes on from here' >&2
          case $REPOS in *' '*)
            echo 'pgherd-hint: if one place stays away: go back (restore --back), and restore from the other one alone (--from)' >&2 ;;
          esac ;;
      esac
      exit 1
    fi
  done
  grep -E 'recovery stopping|last completed transaction' "$LOG" | sed 's/.*LOG:  //' || true
}

stop() { "$BIN/pg_ctl" -D "$1" -s -w -t 3600 -m fast stop; }

# How far a restore is, by its ID, in the file MARK.
note() {
  printf '%s %s\n' "$ID" "$1" >"$MARK.new"
  mv -f "$MARK.new" "$MARK"
}
at() { [ "$(cat "$MARK" 2>/dev/null || true)" = "$ID $1" ]; }

# recovered DIRECTORY: what was recovered has no heartbeat from after UNTIL, if that is a time; says the newest one. Notes
# in MARK.json what was reached.
recovered() {
  local data=$1 newest=null after timeline backup
  if [ "$(ask "$data" postgres "select to_regclass('pgherd_heartbeat.ledger') is not null")" = t ]; then
    if [ -n "$UNTIL" ]; then
      after=$(ask "$data" postgres "select count(*) from pgherd_heartbeat.ledger where at > '$UNTIL'")
      if [ "$after" != 0 ]; then
        echo "recovery went too far: $after heartbeats are from after the moment" >&2
        exit 1
      fi
    fi
    newest=$(ask "$data" postgres "select coalesce(extract(epoch from max(at))::int8::text, 'null') from pgherd_heartbeat.ledger")
  fi
  timeline=$(ask "$data" postgres 'select timeline_id from pg_control_checkpoint()')
  backup=$(sed -n 's/.*restore backup set \([^ ,]*\).*/\1/p' "$MARK.log" | tail -n 1)
  printf '{"newest": %s, "timeline": %s, "backup": "%s"}\n' "$newest" "$timeline" "$backup" >"$MARK.json"
}
