# rest METHOD PATH [BODY]: asks Patroni's REST interface at $REST, and prints the answer. It fails unless the answer is one of
# success. $REST_USER and $REST_PASSWORD are for changes.
rest() {
  REST=$REST REST_USER=$REST_USER REST_PASSWORD=$REST_PASSWORD timeout 30 python3 - "$@" <<'PYTHON'
import base64, os, sys, urllib.request
method, path, body = (sys.argv[1:] + [None])[:3]
ask = urllib.request.Request("http://%s/%s" % (os.environ["REST"], path), method=method, data=body and body.encode())
if os.environ["REST_USER"]:
    login = "%s:%s" % (os.environ["REST_USER"], os.environ["REST_PASSWORD"])
    ask.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
ask.add_header("Content-Type", "application/json")
try:
    print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ask, timeout=20).read().decode())
except OSError as error:
    sys.exit("Patroni at %s: %s" % (os.environ["REST"], error))
PYTHON
}
# Waits until a command succeeds, and fails after a minute with a sentence.
await() {
  why=$1
  shift
  n=0
  until "$@" >/dev/null 2>&1; do
    n=$((n + 1))
    [ $n -lt 120 ] || { echo "$why within 60 s" >&2; return 1; }
    sleep 0.5
  done
}
is_paused() { rest GET patroni | grep -q '"pause": true'; }
is_not_paused() { p=$(rest GET patroni) && ! printf '%s' "$p" | grep -q '"pause": true'; }
