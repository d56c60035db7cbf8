# shellcheck disable=SC2154 # these variables are set before, and `rest` comes from rest.sh
# Gives Patroni its new config and starts it again, while PostgreSQL keeps running. The cluster is paused: without its
# Patroni, this PostgreSQL is nobody's to fail over. $NEW is the config, $CONFIG its path, $LEADS whether this member leads.
pid=$(sed -n 1p "$DATA/postmaster.pid")
at=$(sed -n 3p "$DATA/postmaster.pid")
t=$(mktemp "$CONFIG.pgherd.XXXXXX")
printf '%s' "$NEW" >"$t"
chown --reference="$CONFIG" "$t"
chmod --reference="$CONFIG" "$t"
if [ ! -e /var/lib/pgherd/adopted/exchanged ]; then
  mv -f "$t" "$CONFIG"
  # Nothing is new to a Patroni that was started with this config.
  cmp -s "$CONFIG" "/var/lib/pgherd/adopted$CONFIG" || (restart_patroni_alone)
else
  rm -f "$t"
fi
if [ -n "$LEADS" ]; then
  await "this member did not become the leader in its new store" rest GET leader
else
  follows() { rest GET replica && rest GET cluster | grep -q '"role": "leader"'; }
  await "this member did not find its leader in the new store" follows
fi
await "Patroni in its new store is not paused" is_paused
[ "$pid $at" = "$(sed -n 1p "$DATA/postmaster.pid") $(sed -n 3p "$DATA/postmaster.pid")" ] || {
  echo "PostgreSQL was started again meanwhile, which nothing here does" >&2
  exit 1
}
touch /var/lib/pgherd/adopted/exchanged
