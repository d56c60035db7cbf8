# shellcheck shell=sh disable=SC2154 # TARGETS and PG_PORT are set before it
# Which members cannot be reached from here: one line for each that does not answer, with its name and the program.
python=/opt/patroni/bin/python3
[ -x "$python" ] || python=$(command -v python3)
# A complete request: half of one leaves a traceback in Patroni's journal.
rest='import ssl, sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))
try:
    opener.open(sys.argv[1], timeout=4)
except urllib.error.HTTPError:
    pass
except urllib.error.URLError as error:
    if isinstance(error.reason, (ssl.SSLError, ConnectionResetError)):
        sys.exit(0)
    print(error.reason)
    sys.exit(1)
except OSError as error:
    print(error)
    sys.exit(1)'
for t in $TARGETS; do
  n=${t%%=*} a=${t#*=}
  {
    timeout 6 pg_isready -q -h "$a" -p "$PG_PORT" -t 4 >/dev/null 2>&1
    [ $? -ne 2 ] || echo "postgres $n"
  } &
  [ -z "$python" ] || {
    s=$("$python" -c "$rest" "$SCHEME://$a:$REST_PORT/liveness" 2>/dev/null) || [ -z "$s" ] || echo "patroni $n $s"
  } &
done
wait
