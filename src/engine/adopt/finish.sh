# shellcheck disable=SC2154 # these variables are set before
# Marks what is there as this cluster's. $DATA is the data directory of a database, $ETCD that of an etcd and $LINK where
# pgherd has it; each is empty on other hosts. $NAME is the name that etcd gets, if it has another one.
if [ -n "$DATA" ]; then
  # The folder above may be PostgreSQL's own: root follows no link there.
  rm -f "$DATA.pgherd"
  (set -C; printf '%s\n' "$ID" >"$DATA.pgherd")
  # A cluster of the package's own that would take the port at the next boot.
  for c in /etc/postgresql/*/*/start.conf; do
    [ -e "$c" ] || continue
    d=${c%/start.conf}
    if grep -q '^auto' "$c" && grep -q "^[[:space:]]*port[[:space:]]*=[[:space:]]*$PORT\\b" "$d/postgresql.conf"; then
      [ -e "/var/lib/pgherd/adopted$c" ] || cp -a --parents "$c" /var/lib/pgherd/adopted
      sed -i 's/^auto.*/manual/' "$c"
    fi
  done
fi
if [ -n "$ETCD" ] && [ "$ETCD" != "$LINK" ] && [ ! -L "$LINK" ]; then
  [ ! -e "$LINK" ] || { echo "$LINK is there already, and is not this etcd's" >&2; exit 1; }
  ln -s "$ETCD" "$LINK"
fi
if [ -n "$ETCD" ] && [ -n "$NAME" ]; then
  # Members are known by their hosts' names. The last line of a variable counts.
  grep -qxF "ETCD_NAME=\"$NAME\"" /etc/default/etcd || printf '\nETCD_NAME="%s"\n' "$NAME" >>/etc/default/etcd
  # While the cluster is paused, its leader stays without etcd too.
  systemctl restart etcd
fi
