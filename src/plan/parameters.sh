# Starts PostgreSQL without serving clients: it reads the new parameters, loads its libraries, and tells how much
# shared memory it would need. It uses a data directory of its own, with a copy of the real one's control file, and
# nothing that runs is touched.
bin=/usr/lib/postgresql/$MAJOR/bin
if [ ! -x "$bin/postgres" ]; then
  echo "$bin/postgres is not there: the parameters are not tried"
  exit 0
fi
d=$(mktemp -d /tmp/pgherd-try.XXXXXX)
trap 'rm -rf "$d"' EXIT
cd /
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
chmod 0700 "$d"
chown postgres:postgres "$d"
# As the user postgres, to whom these folders belong: root would follow any link in them.
as_postgres mkdir "$d/global"
as_postgres cp "$DATA_DIR/PG_VERSION" "$d/"
as_postgres cp "$DATA_DIR/global/pg_control" "$d/global/"
# The next start reads what ALTER SYSTEM has written, too.
[ ! -e "$DATA_DIR/postgresql.auto.conf" ] || as_postgres cp "$DATA_DIR/postgresql.auto.conf" "$d/"
# shellcheck disable=SC2016 # $0 is for that shell
printf '%s' "$CONFIG" | as_postgres sh -c 'umask 077; cat >"$0"' "$d/postgresql.conf"
as_postgres chmod -R go= "$d"

try() { as_postgres "$bin/postgres" -D "$d" "$@" -c log_destination=stderr -c logging_collector=off; }
# PostgreSQL loads libraries here only from version 15 on, and some are loaded only by a session. So each file must
# exist.
missing=
for kind in shared_preload_libraries session_preload_libraries local_preload_libraries archive_library; do
  [ "$MAJOR" -ge 15 ] || [ "$kind" != archive_library ] || continue
  names=$(try "$@" -C "$kind")
  set -f
  old=$IFS
  IFS=,
  for name in $names; do
    IFS=$old
    name=$(printf '%s' "$name" | tr -d ' "')
    dir=/usr/lib/postgresql/$MAJOR/lib
    [ "$kind" != local_preload_libraries ] || dir=$dir/plugins
    # shellcheck disable=SC2016 # PostgreSQL's name for its folder of libraries
    case $name in
      '') continue ;;
      '$libdir/'*) file=/usr/lib/postgresql/$MAJOR/lib/${name#*/} ;;
      */*) file=$name ;;
      *) file=$dir/$name ;;
    esac
    if [ ! -e "$file" ] && [ ! -e "${file%.so}.so" ]; then
      echo "ERROR:  parameter \"$kind\" names \"$name\", and there is no ${file%.so}.so" >&2
      missing=yes
    fi
  done
  IFS=$old
  set +f
done
if [ "$MAJOR" -lt 15 ]; then
  try "$@" -C data_directory >/dev/null
  [ -z "$missing" ]
  exit
fi
needed=$(try "$@" -C shared_memory_size)
there=$(awk '/^(MemTotal|SwapTotal):/ { n += $2 } END { print int(n / 1024) }' /proc/meminfo)
if [ "$needed" -gt "$there" ] 2>/dev/null; then
  echo "FATAL:  parameter \"shared_buffers\" and others ask for $needed MB of shared memory; the host has $there MB of memory and swap" >&2
  exit 1
fi
[ -z "$missing" ]
