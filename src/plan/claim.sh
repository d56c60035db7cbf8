# Notes in pgherd's manifest what pgherd is about to take, before it takes it. What exists already is copied first,
# so that 'down' can restore it. The new manifest replaces the old one as a whole: a run that is interrupted before
# has taken nothing.
state=/var/lib/pgherd
tab=$(printf '\t')
mkdir -p "$state"
# Several services may be set up at once, and none may lose what another one has noted.
exec 8<"$state"
flock 8
new=$state/manifest.new
if [ -s "$state/manifest" ]; then
  cat "$state/manifest" >"$new"
else
  printf 'pgherd-manifest\t1\ncluster\t%s\n' "$CLUSTER_ID" >"$new"
fi
noted() { grep -qxF -- "$1" "$new"; }
note() { noted "$1" || printf '%s\n' "$1" >>"$new"; }
there() { [ -e "$1" ] || [ -L "$1" ]; }
folders() {
  d=$(dirname "$1")
  while [ ! -e "$d" ]; do note "folder$tab$d"; d=$(dirname "$d"); done
}
keep() {
  k=$state/kept$1
  # shellcheck disable=SC2174 # the parent folder exists, and keeps its mode
  mkdir -p -m 0700 "$state/kept"
  mkdir -p "$(dirname "$k")"
  rm -rf "$k" "$k.new"
  cp -a -- "$1" "$k.new"
  mv -T -- "$k.new" "$k"
}
# Hosts of an earlier pgherd, which kept no manifest.
for p in $ADOPT_FILES; do note "file$tab$p"; done
for p in $ADOPT_FOLDERS; do note "folder$tab$p"; done
for u in $ADOPT_UNITS; do note "unit$tab$u$tab$tab"; done
[ -z "$ADOPT_FILES" ] || [ ! -e /opt/patroni/.pgherd ] || note "tree$tab/opt/patroni"

for p in $PATHS; do
  if ! noted "file$tab$p"; then
    ! there "$p" || keep "$p"
    folders "$p"
    note "file$tab$p"
  fi
done
# Created only if missing, and never changed.
for p in $SOURCES; do
  if ! noted "file$tab$p" && ! noted "left$tab$p"; then
    if there "$p"; then note "left$tab$p"; else note "file$tab$p"; fi
  fi
done
for u in $UNITS; do
  if ! grep -q "^unit$tab$u$tab" "$new"; then
    note "unit$tab$u$tab$(systemctl is-enabled "$u" 2>/dev/null || true)$tab$(systemctl is-active "$u" 2>/dev/null || true)"
  fi
done
[ -z "$DATA_DIR" ] || folders "$DATA_DIR"
mv -f "$new" "$state/manifest"
exec 8<&-
