# shellcheck shell=sh disable=SC2154 # the caller sets them
# What an upgrade would meet on a host. A line for each fact. FROM, TO, DATA, OLD and NEW are set.
export LC_ALL=C
cd /
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([^(]\)/\1/p'; }
there() { dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^installed //p'; }
echo "candidate=$(candidate "postgresql-$TO")"
echo "installed=$(there "postgresql-$TO")"
echo "free=$(df -Pk "$(dirname "$DATA")" | awk 'NR == 2 { print $4 }')"
echo "here=$(du -sk "$DATA" 2>/dev/null | cut -f 1)"
echo "version=$(cat "$DATA/PG_VERSION" 2>/dev/null)"
[ ! -e "$OLD" ] || echo "kept=$OLD"
if ! mountpoint -q "$DATA" && [ ! -L "$DATA" ] && [ ! -L "$DATA/pg_wal" ]; then echo movable=yes; fi
to=/usr/share/postgresql/$TO/extension
for file in "$to"/*.control; do
  [ ! -e "$file" ] || { file=${file##*/}; echo "has=${file%.control}"; }
done
# The package of each extension of the old version, and the new version's of the same name.
dpkg -S "/usr/share/postgresql/$FROM/extension/*.control" 2>/dev/null | sed 's/: .*extension\// /; s/\.control$//' |
  while read -r package name; do echo "extension=$name postgresql-$TO${package#postgresql-"$FROM"}"; done
dpkg -S "/usr/share/postgresql/$FROM/extension/*.control" 2>/dev/null | sed 's/: .*//' | sort -u |
  sed -n "s/^postgresql-$FROM/postgresql-$TO/p" | while read -r package; do
    [ -z "$(candidate "$package")" ] || echo "offered=$package"
  done
# The names of the new version's parameters.
server=/usr/lib/postgresql/$TO/bin/postgres
if [ -x "$server" ]; then
  setpriv --reuid=postgres --regid=postgres --init-groups "$server" --describe-config 2>/dev/null | cut -f 1 | sed 's/^/parameter=/'
fi
