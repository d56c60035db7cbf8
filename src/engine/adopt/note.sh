# shellcheck disable=SC2154 # $ID and $CONFIG are set before
# Notes that this host is being adopted, before anything changes, and keeps what somebody has configured.
state=/var/lib/pgherd
install -d -o root -g root -m 0755 $state
install -d -o root -g root -m 0700 $state/adopted
[ -s $state/adopting ] || { printf '%s\n' "$ID" >$state/adopting.new; mv -f $state/adopting.new $state/adopting; }
for f in "$CONFIG" /etc/systemd/system/patroni.service /etc/default/etcd /etc/haproxy/haproxy.cfg; do
  if [ -f "$f" ] && [ ! -e "$state/adopted$f" ]; then cp -a --parents "$f" $state/adopted; fi
done
