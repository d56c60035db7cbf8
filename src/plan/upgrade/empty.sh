# shellcheck shell=sh disable=SC2154 # the caller sets them
# Makes room for a copy of the leader's data, where there is another version's (GONE). With KEEP=yes, that data is kept.
if runs; then
  [ "$(version "$DATA")" != "$GONE" ] || {
    echo "PostgreSQL $GONE still runs, as process $pid" >&2
    exit 1
  }
elif [ "$(version "$DATA")" = "$GONE" ]; then
  if [ "$KEEP" = yes ]; then
    # A run that was cut off has moved it already.
    [ ! -e "$OLD" ] || {
      echo "$OLD is there already" >&2
      exit 1
    }
    mv "$DATA" "$OLD"
  else
    rm -rf "$DATA"
  fi
fi
[ -d "$DATA" ] || install -d -o postgres -g postgres -m 0700 "$DATA"
