# Sends the last WAL of a member that has stopped to the places that are restored, if it could not be sent to all: while one
# place is away, PostgreSQL does not wait until the other one has everything. DATA, CONFIG, STANZA and REPOS (the numbers of
# the repositories) are set.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chown postgres:postgres "$folder"
only=$folder/pgbackrest.conf
install -o postgres -g postgres -m 0600 /dev/null "$only"
for key in $REPOS; do
  sed -E "/^repo[^$key]-/d" "$CONFIG" >"$only"
  # What is older has been sent.
  find "$DATA/pg_wal/archive_status" -name '*.ready' 2>/dev/null | sort | tail -n 64 | while read -r ready; do
    file=$DATA/pg_wal/$(basename "$ready" .ready)
    (cd / && timeout 60 setpriv --reuid=postgres --regid=postgres --init-groups pgbackrest --config="$only" --stanza="$STANZA" \
      --no-archive-async --log-level-console=error archive-push "$file") || echo "WARN: not sent: $file" >&2
  done
done
