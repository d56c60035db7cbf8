# Prints which versions are installed, and which running programs were replaced on disk; ends with `end`.
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# In a container, root may not inspect the processes of other users, so it becomes their user.
program() {
  readlink "/proc/$1/exe" 2>/dev/null ||
    setpriv --reuid="$(stat -c %u "/proc/$1")" --regid="$(stat -c %g "/proc/$1")" --clear-groups \
      readlink "/proc/$1/exe" 2>/dev/null
}
gone() {
  # Another check reports what does not run.
  [ -d "/proc/$2" ] || return 0
  case $(program "$2") in
    '') echo "unseen $1" ;;
    *' (deleted)') echo "replaced $1" ;;
  esac
}
if [ -n "$POSTGRES" ]; then
  [ -x "$POSTGRES" ] && echo "postgres $("$POSTGRES" --version 2>/dev/null)"
  p=$(head -n 1 "$DATA_DIR/postmaster.pid" 2>/dev/null)
  [ -n "$p" ] && gone PostgreSQL "$p"
  for d in /opt/patroni/lib/python3*/site-packages/patroni-*.dist-info; do
    if [ "$PATRONI" != venv ] || [ ! -d "$d" ]; then continue; fi
    d=${d##*/patroni-}
    echo "patroni ${d%.dist-info}"
  done
  [ "$PATRONI" = package ] && dpkg-query -W -f 'patroni ${Version}\n' patroni 2>/dev/null
fi
for u in $UNITS; do
  p=$(systemctl show -p MainPID --value "$u.service" 2>/dev/null)
  [ "${p:-0}" -gt 0 ] 2>/dev/null && gone "$u" "$p"
done
echo end
exit 0
