# Replaces the database in DATA by one that is restored; goes on where an earlier run of the same restore (ID) ended.
# MARK says how far it is. With KEEP=yes, the old data goes to OLD. UNTIL is the moment, if it is a time.
note() {
  printf '%s %s\n' "$ID" "$1" >"$MARK.new"
  mv -f "$MARK.new" "$MARK"
}
at() { [ "$(cat "$MARK" 2>/dev/null || true)" = "$ID $1" ]; }

case $(cat "$MARK" 2>/dev/null || true) in
  "$ID "*) ;;
  *) note begun ;;
esac

if at begun; then
  if [ "$KEEP" = yes ]; then
    # A run that was cut off here may have moved it already.
    [ -e "$OLD" ] || [ ! -e "$DATA" ] || mv "$DATA" "$OLD"
    [ -d "$DATA" ] || mkdir -m 0700 "$DATA"
  fi
  note aside
fi

if at aside; then
  echo restore
  restore_to "$DATA" --delta "$@" | tee "$MARK.log"
  note restored
fi

if at restored; then
  echo recovery
  rm -f "$DATA/postmaster.pid"
  # With archiving on, the history of the new timeline is not lost; it is sent when Patroni has started.
  recover "$DATA" '-c archive_mode=on -c archive_command='
  ledger=$(ask "$DATA" postgres "select to_regclass('pgherd_heartbeat.ledger') is not null")
  newest=null
  if [ "$ledger" = t ]; then
    if [ -n "$UNTIL" ]; then
      after=$(ask "$DATA" postgres "select count(*) from pgherd_heartbeat.ledger where at > '$UNTIL'")
      if [ "$after" != 0 ]; then
        echo "recovery went too far: $after heartbeats are from after the moment" >&2
        exit 1
      fi
    fi
    newest=$(ask "$DATA" postgres "select coalesce(extract(epoch from max(at))::int8::text, 'null') from pgherd_heartbeat.ledger")
  fi
  timeline=$(ask "$DATA" postgres 'select timeline_id from pg_control_checkpoint()')
  backup=$(sed -n 's/.*restore backup set \([^ ,]*\).*/\1/p' "$MARK.log" | tail -n 1)
  stop "$DATA"
  # Patroni has settings of its own for recovery.
  sed -i -e '/^restore_command/d' -e '/^recovery_target/d' "$DATA/postgresql.auto.conf"
  printf '{"newest": %s, "timeline": %s, "backup": "%s"}\n' "$newest" "$timeline" "$backup" >"$MARK.json"
  note recovered
fi
at recovered
