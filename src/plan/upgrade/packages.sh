# shellcheck shell=sh disable=SC2154,SC2086 # the caller sets them; lists of packages are split on purpose
# Removes the old version's packages that pgherd has installed, unless something else needs them.
notes=/var/lib/pgherd
go=
for p in $(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "postgresql-$FROM*" "postgresql-client-$FROM*" 2>/dev/null | sed -n 's/ installed$//p'); do
  if ! grep -qxF "$p" "$notes/packages.brought" 2>/dev/null || grep -qxF "$p" "$notes/packages.before" 2>/dev/null; then
    echo "$p stays: it was there before pgherd"
  else
    go="$go $p"
  fi
done
for c in /etc/postgresql/"$FROM"/*/postgresql.conf; do
  [ ! -e "$c" ] || {
    echo "the packages of PostgreSQL $FROM stay: another database needs them ($c)"
    exit 0
  }
done
[ -n "$go" ] || exit 0
others=$(apt-get -s purge $go 2>/dev/null | sed -n 's/^\(Remv\|Purg\) \([^ :]*\).*/\2/p' | sort -u)
for p in $others; do
  case " $go " in
    *" $p "*) ;;
    *)
      echo "the packages of PostgreSQL $FROM stay: $p needs them"
      exit 0
      ;;
  esac
done
with_locks env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 purge $go
