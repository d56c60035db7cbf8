# shellcheck disable=SC2013,SC2046,SC2086 # lists of packages are split on purpose
# shellcheck disable=SC2020 # each of the two characters becomes a newline
# Which of the packages that pgherd installed can be removed, because nothing else needs them. Prints 'go' and the
# package, or 'stays', the package and the reason, or 'trouble' if apt cannot tell. It changes nothing: apt decides
# on a copy of its state, in which nobody asks for pgherd's packages any more.
weigh() (
  set +eu
  export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  state=/var/lib/pgherd
  [ -s "$state/packages.brought" ] || exit 0
  t=$(mktemp -d)
  trap 'rm -rf "$t"' EXIT
  dpkg-query -W -f '${Package}\t${db:Status-Status}\n' >"$t/all" 2>/dev/null
  sort -u "$state/packages.brought" >"$t/came"
  sort -u "$state/packages.before" >"$t/before" 2>/dev/null || : >"$t/before"
  comm -23 "$t/came" "$t/before" >"$t/brought"
  awk -F '\t' '$2 != "not-installed" && $2 != "config-files" { print $1 }' "$t/all" | sort -u >"$t/installed"
  # Somebody has removed the package, and its config files are left.
  awk -F '\t' '$2 == "config-files" { print $1 }' "$t/all" | sort -u | comm -12 - "$t/brought" | sed 's/^/go\t/'
  comm -12 "$t/brought" "$t/installed" >"$t/ours"
  [ -s "$t/ours" ] || exit 0

  : >"$t/roots"
  root() { printf '%s\t%s\n' "$1" "$2" >>"$t/roots"; }
  # Somebody has asked for the package by name after pgherd had installed it.
  { cat "$state/packages.asked" 2>/dev/null; printf '%s\n' $WANTED; } | sort -u >"$t/asked"
  for p in $(apt-mark showmanual | sort -u | comm -12 - "$t/ours" | comm -23 - "$t/asked"); do
    root "$p" "asked for by name since"
  done
  for p in $(printf '%s\n' ${KEEP:-} | sort -u | comm -12 - "$t/ours"); do root "$p" "needed by another role of the host"; done
  for p in $(apt-mark showhold | sort -u | comm -12 - "$t/ours"); do root "$p" "held back"; done
  # To purge a server's package drops the clusters of its version; to purge etcd removes all its data.
  for c in /etc/postgresql/*/*/postgresql.conf; do
    [ -e "$c" ] || continue
    c=${c#/etc/postgresql/}
    p=postgresql-${c%%/*}
    grep -qxF "$p" "$t/ours" && root "$p" "needed by the database ${c%/postgresql.conf}"
  done
  if grep -qxF etcd-server "$t/ours" && [ -n "$(find /var/lib/etcd -mindepth 1 -maxdepth 1 ! -path "$ETCD_DIR" 2>/dev/null | head -n 1)" ]; then
    root etcd-server "other data is in /var/lib/etcd"
  fi
  # A package that was installed later recommends it, and perhaps uses it.
  sort -u "$t/before" "$t/brought" | comm -13 - "$t/installed" >"$t/later"
  for q in $(cat "$t/later"); do
    for p in $(dpkg-query -W -f '${Recommends}\n' "$q" 2>/dev/null | tr ',|' '\n\n' | sed 's/^ *//; s/[ :(].*//' | sort -u | comm -12 - "$t/ours"); do
      root "$p" "recommended by $q"
    done
  done
  cut -f 1 "$t/roots" | sort -u >"$t/rooted"

  cp /var/lib/apt/extended_states "$t/states" 2>/dev/null || : >"$t/states"
  {
    echo '#clear APT::NeverAutoRemove;'
    echo "Dir::State::extended_states \"$t/states\";"
    echo 'APT::AutoRemove::RecommendsImportant "false"; APT::AutoRemove::SuggestsImportant "false";'
  } >"$t/conf"
  mark() { apt-mark -c "$t/conf" "$@" >/dev/null 2>>"$t/said"; }
  gone() { apt-get -c "$t/conf" -s "$@" 2>>"$t/said" >"$t/out" && sed -n 's/^\(Remv\|Purg\) \([^ :]*\).*/\2/p' "$t/out" | sort -u; }
  free=$(comm -23 "$t/ours" "$t/rooted")
  [ -z "$free" ] || mark auto $free
  [ ! -s "$t/rooted" ] || mark manual $(cat "$t/rooted")
  n=0
  while :; do
    n=$((n + 1))
    # After an interrupted dpkg, apt cannot tell. Then all can go, if no package of others would go with them.
    if gone autoremove >"$t/idle" && [ -z "$(sed -n '/^[EW]: /p' "$t/out")" ]; then
      comm -12 "$t/ours" "$t/idle" >"$t/go"
    else
      comm -23 "$t/ours" "$t/rooted" >"$t/go"
    fi
    [ -s "$t/go" ] || break
    if ! gone purge $(cat "$t/go") >"$t/would"; then
      printf 'trouble\t%s\n' "$(tail -n 3 "$t/said" | tr '\n\t' '  ')"
      exit 0
    fi
    comm -23 "$t/would" "$t/go" >"$t/others"
    [ -s "$t/others" ] || break
    if [ "$n" -gt 20 ]; then
      printf 'trouble\tapt would remove these too: %s\n' "$(tr '\n' ' ' <"$t/others")"
      exit 0
    fi
    mark manual $(cat "$t/others")
  done
  sed 's/^/go\t/' "$t/go"
  comm -23 "$t/ours" "$t/go" >"$t/stay"
  [ -s "$t/stay" ] || exit 0
  gone purge $(cat "$t/stay") | comm -23 - "$t/ours" >"$t/others" || true
  needed=$(tr '\n' ' ' <"$t/others" | sed 's/ $//; s/ /, /g')
  why="needed by ${needed:-what stays}"
  while read -r p; do
    own=$(sed -n "s/^$p\t//p" "$t/roots" | head -n 1)
    printf 'stays\t%s\t%s\n' "$p" "${own:-$why}"
  done <"$t/stay"
)
