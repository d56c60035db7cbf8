# Runs PROGRAM in the unit UNIT, which goes on if this script is cut off, and shows its journal. An earlier run that is
# still at work is waited for. SUCCESS is a command that says whether it has succeeded.
since=$(date +%s)
journalctl -q -f -n 0 -o cat -u "$UNIT" &
shows=$!
if ! systemctl is-active --quiet "$UNIT"; then
  systemctl reset-failed "$UNIT" 2>/dev/null || true
  begin "$@"
fi
while systemctl is-active --quiet "$UNIT"; do sleep 0.2; done
sleep 0.5
kill "$shows" 2>/dev/null || true
if ! eval "$SUCCESS"; then
  journalctl -q -o cat --since "@$since" -u "$UNIT" | grep -v -e systemd -e '^recovery$' | tail -n 20 >&2 || true
  exit 1
fi
