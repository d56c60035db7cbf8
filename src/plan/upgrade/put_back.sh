# shellcheck shell=sh disable=SC2154 # the caller sets them
# Puts the old version's data back in its place.
if runs; then
  [ "$(version "$DATA")" = "$FROM" ] || {
    echo "PostgreSQL $(version "$DATA") still runs, as process $pid" >&2
    exit 1
  }
elif [ -e "$OLD" ]; then
  rm -rf "$NEW"
  [ ! -e "$DATA" ] || mv "$DATA" "$NEW"
  mv "$OLD" "$DATA"
fi
[ "$(version "$DATA")" = "$FROM" ]
