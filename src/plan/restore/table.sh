# Dumps tables as they were into PLACE/dump, from an instance that is removed again.
rm -rf "$PLACE"
mkdir -m 0700 "$PLACE" "$PLACE/data"
trap 'rm -rf "$PLACE/data" "$PLACE/tablespaces"' EXIT
echo restore
restore_to "$PLACE/data" --archive-mode=off --tablespace-map-all="$PLACE/tablespaces" "$@"
echo recovery
recover "$PLACE/data" '-c archive_mode=off -c shared_buffers=128MB -c max_wal_senders=0'
if [ -n "$UNTIL" ] && [ "$(ask "$PLACE/data" postgres "select to_regclass('pgherd_heartbeat.ledger') is not null")" = t ]; then
  after=$(ask "$PLACE/data" postgres "select count(*) from pgherd_heartbeat.ledger where at > '$UNTIL'")
  if [ "$after" != 0 ]; then
    echo "recovery went too far: $after heartbeats are from after the moment" >&2
    exit 1
  fi
fi
echo dump
code=0
"$BIN/pg_dump" -h "$PLACE/data" -p "$PORT" -U postgres -d "$DATABASE" "--table=$TABLE" -f "$PLACE/dump.new" || code=$?
stop "$PLACE/data"
[ "$code" = 0 ] || exit 1
mv "$PLACE/dump.new" "$PLACE/dump"
