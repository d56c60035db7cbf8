# shellcheck shell=sh disable=SC2154 # the caller sets them
# Stops a member in a paused cluster: PostgreSQL first, which Patroni then leaves alone, and keeps everybody from
# starting it.
install -d -m 0755 "$(dirname "$HELD")"
printf '%s\n' '# PostgreSQL is being upgraded. A Patroni that starts now would start the old version.' \
  '[Unit]' 'AssertPathExists=/run/pgherd/restored' | put "$HELD" root:root 0644
systemctl daemon-reload
if runs; then as_postgres "$old_bin/pg_ctl" -D "$DATA" -s -w -t 3600 -m fast stop; fi
systemctl stop patroni
if runs; then
  echo "PostgreSQL still runs, as process $pid, although it was stopped" >&2
  exit 1
fi
[ -e "$DATA/PG_VERSION" ] || exit 0
echo "$(control "$DATA" 'Database cluster state'), at $(control "$DATA" 'Latest checkpoint location')"
