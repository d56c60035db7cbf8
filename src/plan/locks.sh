# shellcheck disable=SC2013,SC2086 # pids, and the words of one line, are split on purpose
# shellcheck disable=SC2012 # only the long form of ls shows what an open file is
# Waits for the locks of dpkg and apt. apt itself waits for one of the four, and only in apt-get install; for the
# locks of lists and archives, and if dpkg runs alone, it gives up at once.

# When all waits of this script end.
lock_wait=${LOCK_WAIT:-600}
lock_deadline=$(($(date +%s) + lock_wait))
lock_files='/var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock'
lock_said=

# Prints "FILE PID COMMAND" for a lock that is held. Its holder keeps the file open, and /proc/locks has its pid.
# Not every host has fuser, lsof or python.
lock_holder() {
  for lock_pid in $(sed -n 's/.* \(POSIX\|OFDLCK\|FLOCK\) *[A-Z]* *[A-Z]* *\([0-9][0-9]*\) .*/\2/p' /proc/locks | sort -u); do
    lock_open=$(ls -l "/proc/$lock_pid/fd" 2>/dev/null | sed -n 's/.* -> //p')
    for lock_file in $lock_files; do
      if printf '%s\n' "$lock_open" | grep -qxF "$lock_file"; then
        printf '%s %s %s\n' "$lock_file" "$lock_pid" "$(cat "/proc/$lock_pid/comm" 2>/dev/null || echo '?')"
        return 0
      fi
    done
  done
  return 1
}

# The systemd unit of a process, as ", in UNIT".
lock_unit() { sed -n 's,.*/\([^/]*\.service\).*,\, in \1,p' "/proc/$1/cgroup" 2>/dev/null | head -n 1; }

# Waits until no lock is held, and says who holds one, each time that the holder changes.
await_locks() {
  while lock_held=$(lock_holder); do
    set -- $lock_held
    case $1 in /var/lib/dpkg/*) lock_whose="dpkg's" ;; *) lock_whose="apt's" ;; esac
    lock_now="$lock_whose lock, held by $3 (pid $2$(lock_unit "$2"))"
    if [ "$lock_now" != "$lock_said" ]; then
      echo "waiting for $lock_now"
      lock_said=$lock_now
    fi
    if [ "$(date +%s)" -ge "$lock_deadline" ]; then
      echo "$lock_now: not free within $lock_wait s ($1)" >&2
      echo "pgherd-hint: look at what it does, and run the same command again when it has ended: ps -fp $2" >&2
      exit 75
    fi
    sleep 1
  done
}

# Runs a command that takes the locks once they are free; repeats it if another process was faster.
with_locks() {
  while :; do
    await_locks
    lock_stderr=$(mktemp)
    lock_code=0
    "$@" 2>"$lock_stderr" || lock_code=$?
    cat "$lock_stderr" >&2
    if [ "$lock_code" = 0 ] || ! grep -qE 'Could not get lock|Unable to (acquire|lock)|was locked by another process' "$lock_stderr" ||
      [ "$(date +%s)" -ge "$lock_deadline" ]; then
      rm -f "$lock_stderr"
      return "$lock_code"
    fi
    rm -f "$lock_stderr"
    sleep 1
  done
}
