# shellcheck disable=SC2154 # $VERB and $LEADER are set before
# Has HAProxy look away from the leader's health ($VERB is `disable`), or look again (`enable`): while its Patroni starts again,
# nobody answers the checks, and the leader cannot change. If nobody comes back, HAProxy looks again by itself.
if [ -S /run/haproxy-master.sock ] && command -v python3 >/dev/null; then
  cat >/run/pgherd/adopt-health <<'PYTHON'
import socket, sys
verb, leader = sys.argv[1:]
def ask(line):
    with socket.socket(socket.AF_UNIX) as way:
        way.settimeout(5)
        way.connect("/run/haproxy-master.sock")
        way.sendall(("@1 %s\n" % line).encode())
        way.shutdown(socket.SHUT_WR)
        answer = b""
        while part := way.recv(65536):
            answer += part
    return answer.decode()
for row in ask("show servers state").splitlines():
    words = row.split()
    # Its backend, its name, its address, and whether it is up.
    if len(words) > 5 and words[4] == leader and (verb == "enable" or words[5] == "2"):
        ask("%s health %s/%s" % (verb, words[1], words[3]))
PYTHON
  if [ "$VERB" = disable ]; then
    systemctl stop pgherd-adopt-health.timer 2>/dev/null || true
    systemd-run --quiet --collect --unit=pgherd-adopt-health --on-active=300s \
      python3 /run/pgherd/adopt-health enable "$LEADER"
  fi
  if ! python3 /run/pgherd/adopt-health "$VERB" "$LEADER"; then
    echo "HAProxy cannot be told to $VERB the checks of the leader; it may shut clients out for some seconds"
  elif [ "$VERB" = enable ]; then
    systemctl stop pgherd-adopt-health.timer 2>/dev/null || true
  fi
fi
