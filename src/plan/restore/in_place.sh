# Replaces the database in DATA by one that is restored; goes on where an earlier run of the same restore (ID) ended.
# MARK says how far it is. With KEEP=yes, the old data goes to OLD. UNTIL is the moment, if it is a time.
case $(cat "$MARK" 2>/dev/null || true) in
  "$ID "*) ;;
  *) note begun ;;
esac

if at begun; then
  if [ "$KEEP" = yes ]; then
    # A run that was cut off here may have moved it already.
    [ -e "$OLD" ] || [ ! -e "$DATA" ] || mv "$DATA" "$OLD"
    [ -d "$DATA" ] || mkdir -m 0700 "$DATA"
  fi
  note aside
fi

if at aside; then
  echo restore
  restore_to "$DATA" --delta "$@" | tee "$MARK.log"
  note restored
fi

if at restored; then
  echo recovery
  rm -f "$DATA/postmaster.pid"
  # With archiving on, the history of the new timeline is not lost; it is sent when Patroni has started.
  recover "$DATA" '-c archive_mode=on -c archive_command='
  recovered "$DATA"
  stop "$DATA"
  # Patroni has settings of its own for recovery.
  sed -i -e '/^restore_command/d' -e '/^recovery_target/d' "$DATA/postgresql.auto.conf"
  note recovered
fi
at recovered
