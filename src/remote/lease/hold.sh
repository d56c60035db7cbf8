umask 077
lease=/run/pgherd.lease
IFS= read -r -t 30 end || exit 0
IFS= read -r -t 30 dead || exit 0
IFS= read -r -t 30 who || exit 0
IFS= read -r -t 30 story || exit 0
tries=0
while exec 9<>"$lease"; do
  flock -n 9
  case $? in
    0)
      # The file may have been removed between open and lock.
      [ /proc/self/fd/9 -ef "$lease" ] && break
      continue
      ;;
    1) ;;
    # No other run holds the lease. This host cannot lock, and flock has printed the reason.
    *) exit 1 ;;
  esac
  there='' pid=''
  { IFS= read -r there; IFS= read -r pid; } <"$lease"
  case $dead$there in
    ?*\"run\":\""$dead"\"*)
      if [ -n "$dead" ] && [ "$tries" -lt 50 ] && [ "/proc/${pid:-none}/fd/9" -ef "$lease" ]; then
        kill -KILL "$pid"
        tries=$((tries + 1))
        sleep 0.1
        continue
      fi
      ;;
  esac
  seen=$(stat -c %Y "$lease") || continue
  printf 'pgherd lease: refused %s %s %s\n' "$(($(date +%s) - seen))" "$seen" "$there"
  exit 0
done
IFS= read -r last <"$lease"
printf '%s\n%s\n' "$who" "$$" >"$lease" || exit 1
printf 'pgherd lease: held %s\n' "$last"
# The history of runs is pgherd's own folder, which the first run makes in its middle.
told=/var/lib/pgherd/history.jsonl
tell() {
  [ -d "${told%/*}" ] || return 1
  printf '%s\n' "$1" >>"$told" || return 0
  if [ "$(stat -c %s "$told")" -gt 524288 ]; then
    tail -n 500 "$told" >"$told.new" && mv -f "$told.new" "$told"
  fi
}
said=$story
next=''
while true; do
  if [ -n "$said" ] && tell "$said"; then said=''; fi
  IFS= read -r -t 30 next || break
  touch -c "/proc/$$/fd/9"
  # A sign of life is a blank line. Other lines say how the run has ended.
  [ -z "$next" ] || said=$next
done
[ -z "$said" ] || tell "$said" || true
if [ "$end" = clear ]; then rm -f "$lease"; fi
