umask 077
lease=/run/pgherd.lease
IFS= read -r -t 30 end || exit 0
IFS= read -r -t 30 dead || exit 0
IFS= read -r -t 30 who || exit 0
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
while IFS= read -r -t 30 _; do touch -c "/proc/$$/fd/9"; done
if [ "$end" = clear ]; then rm -f "$lease"; fi
