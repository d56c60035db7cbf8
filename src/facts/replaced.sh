# shellcheck shell=sh
# In a container, root may not inspect the processes of other users, so it becomes their user.
as_owner() {
  o=$1
  shift
  "$@" 2>/dev/null ||
    setpriv --reuid="$(stat -c %u "/proc/$o")" --regid="$(stat -c %g "/proc/$o")" --clear-groups "$@" 2>/dev/null
}
# Prints the program or the library of a process that was replaced after it started, if there is one.
replaced() {
  [ -d "/proc/$1" ] || return 0
  e=$(as_owner "$1" readlink "/proc/$1/exe") || return 0
  case $e in
    *' (deleted)') echo "${e% (deleted)}" ;;
    *) as_owner "$1" cat "/proc/$1/maps" | sed -n 's,.* \(/[^ ]*\.so[^ ]*\) (deleted)$,\1,p' | sort -u | head -n 1 ;;
  esac
}
