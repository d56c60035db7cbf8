# shellcheck disable=SC2086 # lists of plain words are split on purpose
# shellcheck disable=SC2154 # apt.sh comes first
# Brings $PACKAGES up to date, if there are any, and notes which of $UNITS (each with what it needs: UNIT:NEED) run although
# their files were replaced.
if [ -n "$PACKAGES" ]; then
  if ! apt install --only-upgrade --no-install-recommends $PACKAGES; then
    others=$(unfinished)
    [ -z "$others" ] ||
      echo "pgherd-hint: dpkg does not bring these packages to an end: $others(look at it by hand: sudo dpkg --configure -a)" >&2
    echo 'pgherd-hint: nothing was restarted on this host; once apt is content, run the same command again' >&2
    exit 65
  fi
fi
for u in $UNITS; do
  p=$(systemctl show -p MainPID --value "${u%%:*}.service" 2>/dev/null)
  [ "${p:-0}" -gt 0 ] 2>/dev/null || continue
  w=$(replaced "$p")
  [ -n "$w" ] || continue
  echo "${u%%:*} still uses $w"
  # Whatever it needs already may be more.
  [ "$(cat "$PENDING/${u%%:*}" 2>/dev/null)" = restart ] || echo "${u#*:}" >"$PENDING/${u%%:*}"
done
