# shellcheck shell=sh disable=SC2154 # the caller sets them
# Undoes an upgrade whose new version no client has reached.
if runs; then
  [ "$(version "$DATA")" = "$FROM" ] || {
    echo "PostgreSQL $(version "$DATA") runs already" >&2
    exit 1
  }
else
  if [ -e "$OLD" ] && [ "$(version "$OLD")" = "$FROM" ]; then
    rm -rf "$NEW"
    [ ! -e "$DATA" ] || mv "$DATA" "$NEW"
    mv "$OLD" "$DATA"
  fi
  [ -e "$DATA/global/pg_control" ] || [ ! -e "$DATA/global/pg_control.old" ] || mv "$DATA/global/pg_control.old" "$DATA/global/pg_control"
fi
[ "$(version "$DATA")" = "$FROM" ]
rm -rf "$NEW"
rm -f "$MARK" "$MARK.json" "$MARK.log"
