# shellcheck shell=sh disable=SC2154,SC2153,SC2086 # the caller sets them; some are several words
# Upgrades the stopped database in DATA; goes on where an earlier run ended, which MARK says. In the end, the new
# version's data is in DATA, and the old version's in OLD.
if at upgraded; then
  cat "$MARK.json"
  exit 0
fi
if runs; then
  echo "PostgreSQL runs, as process $pid" >&2
  exit 1
fi
if ! at linked; then
  # An earlier run may have renamed it, to keep the old version from starting.
  [ -e "$DATA/global/pg_control" ] || mv "$DATA/global/pg_control.old" "$DATA/global/pg_control"
  if ! at checked || [ "$(version "$NEW")" != "$TO" ]; then init_new; fi
  note begun
  sockets
  trap 'rm -rf "$sockets"' EXIT
  pg_upgrade $LINK || {
    echo "pg_upgrade has failed; the old version's data is as it was" >&2
    exit 1
  }
  printf '{"system": "%s", "xid": "%s"}\n' "$(control "$NEW" 'Database system identifier')" \
    "$(control "$NEW" "Latest checkpoint's NextXID")" >"$MARK.json"
  rm -rf "$NEW/pg_upgrade_output.d" "$NEW/delete_old_cluster.sh" "$NEW/trial"
  note linked
fi
[ -e "$OLD" ] || mv "$DATA" "$OLD"
[ -e "$DATA" ] || mv "$NEW" "$DATA"
sync -f "$DATA"
note upgraded
cat "$MARK.json"
