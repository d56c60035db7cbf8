# shellcheck shell=sh disable=SC2016,SC2154 # what perl reads is no variable of the shell; those in capitals are set by the caller
# PLACES has the names of the places. With more than one, their repositories have numbers, in this order.
cd /
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
for kind in full diff incr; do
  at=$(sed -n 's/^OnCalendar=//p' "/etc/systemd/system/pgherd-backup-$kind.timer" 2>/dev/null)
  [ -n "$at" ] || continue
  times=$(systemd-analyze calendar --iterations=9 "$at" 2>/dev/null | sed -nE '/: never$/d; s/^ *(Next elapse|Iter[a-z.]* #[0-9]+): //p' |
    while read -r _ date time zone; do date -d "$date $time $zone" +%s; done | tr '\n' ' ')
  # Incremental backups may have none.
  [ -z "$times" ] || printf 'schedule\t%s\t%s\n' "$kind" "$times"
  ended=$(systemctl show -P StateChangeTimestamp "pgherd-backup@$kind")
  printf 'unit\t%s\t%s\t%s\t%s\n' "$kind" "$(systemctl show -P ActiveState "pgherd-backup@$kind")" \
    "$(systemctl show -P Result "pgherd-backup@$kind")" "$(date -d "${ended:-now}" +%s)"
done
# Backups in one of two places have no schedule; each is of a kind and a place, such as full-bucket.
systemctl list-units --plain --no-legend --state=activating 'pgherd-backup@*-*' 2>/dev/null |
  sed -nE 's/^ *pgherd-backup@([a-z-]+)[.]service .*/unit\t\1\tactivating\tsuccess/p'
# Made with the repository, and never written to.
stat --printf='since\t%Y\n' "$ARCHIVING" 2>/dev/null
date '+now	%s'

# The WAL that is there, by timeline, as ranges without a hole.
ranges() {
  perl -ne '
  next unless /^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})-\S* (\d+) (\d+)/;
  my ($t, $n) = ($1, hex($2) * 256 + hex($3));
  $there{$t}{$n} = 1; $bytes += $4; $newest = $5 if $5 > ($newest // 0);
  END {
    for my $t (sort keys %there) {
      my ($first, $last);
      for my $n (sort { $a <=> $b } keys %{$there{$t}}) {
        if (defined $last && $n == $last + 1) { $last = $n; next }
        print "wal\t", hex($t), "\t$first\t$last\n" if defined $last;
        $first = $last = $n;
      }
      print "wal\t", hex($t), "\t$first\t$last\n";
    }
    print "wal-bytes\t$bytes\nwal-newest\t$newest\n" if $newest;
  }'
}
# NAME SIZE TIME of each file of WAL.
files() {
  if [ "$place" = disk ]; then
    find "/var/lib/pgherd-backups/archive/$STANZA" -type f -printf '%f %s %T@\n' 2>/dev/null
  else
    # shellcheck disable=SC2086 # words
    as_postgres timeout 50 pgbackrest --config="$CONFIG" $repo --output=json --recurse --log-level-console=off --log-level-stderr=error \
      repo-ls "archive/$STANZA" | perl -ne 'while (m#"(?:[^"]*/)?([0-9A-F]{24}-[^"/]*)":\{([^}]*)\}#g) {
        my ($name, $rest) = ($1, $2);
        my ($size) = $rest =~ /"size":(\d+)/; my ($time) = $rest =~ /"time":(\d+)/;
        print "$name $size $time\n" if defined $size && defined $time }'
  fi
}
manifests() {
  if [ "$place" = disk ]; then
    (cd "/var/lib/pgherd-backups/backup/$STANZA" 2>/dev/null && ls -d ./*/backup.manifest 2>/dev/null)
  else
    # shellcheck disable=SC2086 # words
    as_postgres timeout 50 pgbackrest --config="$CONFIG" $repo --recurse --filter='/backup[.]manifest$' --log-level-console=off \
      --log-level-stderr=error repo-ls "backup/$STANZA"
  fi
}
key=0
for place in $PLACES; do
  key=$((key + 1))
  printf 'place\t%s\n' "$place"
  repo=
  # A place that does not answer keeps nobody waiting for long.
  [ "$PLACES" = "$place" ] || repo="--repo=$key --io-timeout=5"
  # shellcheck disable=SC2086 # words
  if ! info=$(as_postgres timeout 30 pgbackrest --config="$CONFIG" --stanza="$STANZA" $repo --output=json --log-level-console=off --log-level-stderr=error info); then
    [ -n "$repo" ] || exit 1
    continue
  fi
  printf 'info\t%s\n' "$info"
  case $repo:$info in
    -*'"code":99'*) continue ;;
  esac
  files | ranges
  manifests | sed -nE 's|^(.*/)?([^/]+)/backup[.]manifest$|files\t\2|p'
  [ "$place" != disk ] || df -k --output=avail,size /var/lib/pgherd-backups 2>/dev/null | sed -n '2s/^ *\([0-9]*\)  *\([0-9]*\) *$/space\t\1\t\2/p'
done
# Its last command must not decide whether it has succeeded.
:
