# shellcheck shell=sh disable=SC2154,SC2012 # the caller sets them
# What a restore of this host's database would meet. One line for each fact, and pgBackRest's answers last.
# CONFIG (or nothing: the repository is not asked), PLACES (of the repositories, which have numbers if there are two), STANZA,
# DATA, OLD and UNTIL (a time in UTC, or nothing) are set.
export LC_ALL=C TZ=UTC
cd /
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
version=$(cat "$DATA/PG_VERSION" 2>/dev/null)
[ ! -d "/usr/lib/postgresql/$version/bin" ] || bin=/usr/lib/postgresql/$version/bin
echo "version=$version"
echo "system=$("$bin/pg_controldata" -D "$DATA" 2>/dev/null | sed -n 's/^Database system identifier: *//p')"
echo "free=$(df -Pk "$(dirname "$DATA")" | awk 'NR == 2 { print $4 }')"
echo "here=$(du -sk "$DATA" 2>/dev/null | cut -f 1)"
[ ! -e "$OLD" ] || echo "kept=$(du -sk "$OLD" | cut -f 1)"
# Without tablespaces and mounts, a folder can be moved aside whole.
if [ ! -e "$DATA" ] || { ! mountpoint -q "$DATA" && [ ! -L "$DATA" ] && [ ! -L "$DATA/pg_wal" ] && [ -z "$(ls "$DATA/pg_tblspc" 2>/dev/null)" ]; }; then
  if setpriv --reuid=postgres --regid=postgres --init-groups test -w "$(dirname "$DATA")"; then echo movable=yes; fi
fi
if [ -n "$UNTIL" ] && [ -d "$DATA/pg_wal" ]; then
  # Segments that were last written before the moment have no commit from after it.
  oldest=$(find "$DATA/pg_wal" -maxdepth 1 -type f -name '[0-9A-F]*' ! -name '*.*' ! -newermt "$UNTIL" | head -n 1)
  echo "complete=$([ -n "$oldest" ] && echo yes || echo no)"
  find "$DATA/pg_wal" -maxdepth 1 -type f -name '[0-9A-F]*' ! -name '*.*' -newermt "$UNTIL" | sort | head -n 65 |
    while read -r segment; do timeout 20 "$bin/pg_waldump" --rmgr=Transaction "$segment" 2>/dev/null; done |
    awk -v until="${UNTIL%+00}" '/desc: COMMIT/ && match($0, /[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9:.]+ UTC/) {
      if (substr($0, RSTART, RLENGTH - 4) > until) n++ } END { print "later=" n + 0 }'
fi
[ -n "$CONFIG" ] || exit 0
key=0
for place in $PLACES; do
  key=$((key + 1))
  repo=
  # A place that does not answer keeps nobody waiting for long.
  [ "$PLACES" = "$place" ] || repo="--repo=$key --io-timeout=5"
  printf 'info-%s=' "$place"
  # shellcheck disable=SC2086 # words
  setpriv --reuid=postgres --regid=postgres --init-groups pgbackrest --config="$CONFIG" --stanza="$STANZA" $repo --output=json \
    --log-level-console=off --log-level-stderr=error info || [ -n "$repo" ] || exit 1
  echo
done
