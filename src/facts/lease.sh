# shellcheck shell=sh
# Prints who holds the host's lease. It is part of the probe, and also runs alone while somebody watches. The holder
# keeps the file open, and touches it as long as its run gives signs of life.
l=/run/pgherd.lease
if [ -s "$l" ]; then
  { IFS= read -r w; IFS= read -r p; } <"$l"
  # POSIX has no -ef, but dash and bash do, and /bin/sh is one of them.
  # shellcheck disable=SC3013
  if [ "/proc/${p:-none}/fd/9" -ef "$l" ]; then
    printf 'lease\t%s\t%s\n' "$(($(date +%s) - $(stat -c %Y "$l")))" "$(printf '%s' "$w" | base64 -w0 2>/dev/null)"
  fi
fi
