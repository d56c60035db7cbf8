# shellcheck shell=sh disable=SC2034,SC2154 # the caller sets the variables, and uses these
# What the scripts of an upgrade share. ID, FROM, TO (major versions), PORT, DATA, NEW (the new version's data while it
# is made), OLD (the old version's data afterwards), MARK and HELD are set.
bin=/usr/lib/postgresql/$TO/bin
old_bin=/usr/lib/postgresql/$FROM/bin
as_postgres() { (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@"); }
version() { cat "$1/PG_VERSION" 2>/dev/null || true; }
note() {
  printf '%s %s\n' "$ID" "$1" >"$MARK.new"
  mv -f "$MARK.new" "$MARK"
}
at() { [ "$(cat "$MARK" 2>/dev/null || true)" = "$ID $1" ]; }
# control DIRECTORY FIELD: of a directory of the version that it has
control() {
  "/usr/lib/postgresql/$(version "$1")/bin/pg_controldata" -D "$1" | sed -n "s/^$2: *//p"
}
# Whether a server runs on the data.
runs() {
  pid=$(head -n 1 "$DATA/postmaster.pid" 2>/dev/null || true)
  [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ]
}
# A folder for sockets, which nobody else can enter; their paths must be short.
sockets() {
  sockets=$(mktemp -d /run/pgherd-upgrade.XXXXXX)
  chown postgres:postgres "$sockets"
}
# What is made by initdb, as the old version's database was.
init_new() {
  rm -rf "$NEW"
  install -d -o postgres -g postgres -m 0700 "$NEW"
  initdb_as_before >"$MARK.log" 2>&1 || {
    tail -n 5 "$MARK.log" >&2
    exit 1
  }
}
# pg_upgrade with its options; what it says about a failure is in files.
pg_upgrade() {
  code=0
  (cd "$NEW" && setpriv --reuid=postgres --regid=postgres --init-groups "$bin/pg_upgrade" -b "$old_bin" -B "$bin" \
    -d "$DATA" -D "$NEW" -U postgres --socketdir="$sockets" --jobs="$(nproc)" -O "$SERVER_OPTIONS" "$@") >"$MARK.log" 2>&1 || code=$?
  [ "$code" != 0 ] || return 0
  grep -vE ' ok$|^-+$|^ *$' "$MARK.log" >&2 || true
  find "$NEW/pg_upgrade_output.d" -name '*.txt' -size +0 2>/dev/null | while read -r file; do
    echo "${file##*/}:" >&2
    head -n 20 "$file" >&2
  done
  grep -hE 'error:|ERROR|FATAL|PANIC' "$NEW"/pg_upgrade_output.d/*/log/*.log 2>/dev/null | sort -u | head -n 8 >&2 || true
  return 1
}
