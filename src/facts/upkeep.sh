# shellcheck disable=SC2016,SC2086,SC2153,SC2154 # lists, which are set before, are split on purpose; fields are dpkg's; boot.sh comes first
# What of a host's software is old: which updates there are, which programs run although their files were replaced, and
# whether a reboot is due. It changes nothing, but for apt's lists of packages where $DEPTH is refreshed. Where it is
# running, apt is not asked.
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
fact() { k=$1; shift; printf '%s' "$k"; for f in "$@"; do printf '\t%s' "$f"; done; printf '\n'; }

fact boot "$boot"
read -r up _ </proc/uptime
fact up "$((${up%.*} - ticks / $(getconf CLK_TCK)))"

if ! systemd-detect-virt --quiet --container; then
  k=$(find /boot -maxdepth 1 -name 'vmlinuz-*' 2>/dev/null | sed 's,.*/vmlinuz-,,' | sort -V | tail -n 1)
  fact kernel "$(uname -r)" "$k"
fi
if [ -e /run/reboot-required ]; then
  fact reboot "$(sort -u /run/reboot-required.pkgs 2>/dev/null | tr '\n' ' ')"
fi

updates() {
  age=
  if [ "$DEPTH" = refreshed ]; then
    if said=$(with_locks apt-get -q -o Acquire::Languages=none -o Acquire::Retries=1 -o APT::Update::Error-Mode=any update 2>&1); then
      age=0
    else
      fact stale "$(printf '%s\n' "$said" | grep '^[EW]: ' | head -n 3 | tr '\n\t' '  ')"
    fi
  fi
  # The files have their servers' times, and changed here when they came.
  t=$(find /var/lib/apt/lists -maxdepth 1 -name '*_*' -printf '%C@\n' 2>/dev/null | sort -n | tail -n 1)
  [ -z "$t" ] || fact lists "${age:-$(($(date +%s) - ${t%.*}))}"

  # The packages that were built from the same source as one of $SERVES, such as a server's client.
  dpkg-query -W -f '${db:Status-Status} ${db:Status-Want} ${Package} ${source:Package} ${Version}\n' 2>/dev/null |
    awk -v names="$SERVES" '
      BEGIN { n = split(names, list, " "); for (i = 1; i <= n; i++) wanted[list[i]] = 1 }
      $1 == "installed" { row[++rows] = $0; if ($3 in wanted) serving[$4] = 1 }
      END { for (i = 1; i <= rows; i++) { split(row[i], f, " "); if (f[4] in serving) print f[3], f[4], f[5], f[2] } }' |
    while read -r p s v w; do
      at=
      for f in "/var/lib/dpkg/info/$p.list" /var/lib/dpkg/info/"$p":*.list; do
        if [ -e "$f" ]; then at=$(stat -c %Y "$f"); fi
      done
      fact package "$p" "$s" "$v" "$at" "$w"
    done

  # What an upgrade of everything would install. Where it is from is in the parentheses, after the version.
  apt-get -s -q -o Debug::NoLocking=1 -o APT::Get::Show-User-Simulation-Note=no --with-new-pkgs upgrade 2>/dev/null |
    sed -n 's/^Inst \([^ ]*\) \[\([^]]*\)\] (\([^ ]*\) \(.*\) \[[a-z0-9]*\]).*/update\t\1\t\2\t\3\t\4/p; s/^Inst \([^ ]*\) (\([^ ]*\) \(.*\) \[[a-z0-9]*\]).*/update\t\1\t\t\2\t\3/p'
}
[ "$DEPTH" = running ] || updates

process() {
  [ -d "/proc/$2" ] || return 0
  read -r s <"/proc/$2/stat" || return 0
  u=$1 p=$2
  set -- ${s##*) }
  since=$(($(date +%s) - ${up%.*} + ${20} / $(getconf CLK_TCK)))
  w=$(replaced "$p")
  if [ -n "$w" ]; then fact process "$u" "$since" replaced "$w"; else fact process "$u" "$since" current; fi
}
for u in $UNITS; do
  p=$(systemctl show -p MainPID --value "$u.service" 2>/dev/null)
  [ "${p:-0}" -gt 0 ] 2>/dev/null && process "$u" "$p"
done
if [ -n "$DATA_DIR" ]; then
  # It runs in Patroni's unit, and is not its first process.
  p=$(head -n 1 "$DATA_DIR/postmaster.pid" 2>/dev/null)
  [ -z "$p" ] || process postgresql "$p"
fi
process systemd 1
fact end
