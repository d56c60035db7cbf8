# shellcheck shell=sh disable=SC2154,SC2086 # the caller sets UNITS, a list of plain words
# What a host tells of itself, for somebody who cannot log in to it. It changes nothing, and shows no process's arguments.
part() {
  printf '\n==> %s\n' "$*"
  timeout 20 "$@" 2>&1 || echo "(exit code $?)"
}
cd /
part date -Ins
part uptime
part uname -a
part cat /etc/os-release
part timedatectl
part free -m
part df -hT
part df -i
part lsblk
part ip -brief address
part ss -Hlnt
part ps -eo pid,ppid,user,pcpu,rss,etime,comm --sort=-rss
part systemctl --no-pager --failed
part systemctl --no-pager list-timers
for unit in $UNITS; do
  part systemctl show "$unit" -p ActiveState -p SubState -p Result -p NRestarts -p ExecMainStartTimestamp -p MemoryCurrent -p UnitFileState
done
# shellcheck disable=SC2016 # these are dpkg's own
part dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' 'postgresql*' 'etcd*' 'haproxy*' 'patroni*' \
  'pgbouncer*' 'pgbackrest*' 'keepalived*'
if [ -x /usr/local/bin/patronictl ]; then
  for what in 'list -e' history show-config; do part /usr/local/bin/patronictl $what; done
fi
for log in /var/log/pgbackrest/*.log; do
  [ ! -r "$log" ] || part tail -n 200 "$log"
done
part journalctl --no-pager -k -n 200
