# The files in which sshd looks for keys of the user $1.
key_files() {
  home=$(getent passwd "$1" | cut -d: -f6)
  listed=$(sshd -T -C "user=$1,host=localhost,addr=127.0.0.1" 2>/dev/null | sed -n 's/^authorizedkeysfile //p')
  for f in ${listed:-.ssh/authorized_keys}; do
    f=$(printf '%s' "$f" | sed "s|%h|$home|g;s|%u|$1|g;s|%%|%|g")
    case $f in
      none) ;;
      /*) printf '%s\n' "$f" ;;
      *) printf '%s\n' "$home/$f" ;;
    esac
  done
}

# The lines of file $2 with the key $1, without comments.
lines_with() { grep -F -- "$1" "$2" 2>/dev/null | grep -v '^[[:space:]]*#'; }

# Replaces file $1 with standard input; owner and mode stay.
replace() {
  cp -p "$1" "$1.pgherd-new"
  cat >"$1.pgherd-new"
  mv -f "$1.pgherd-new" "$1"
}
