# Makes the database in DATA from the repository of another cluster; goes on where an earlier run of the same clone (ID)
# ended. MARK says how far it is. UNTIL is the moment, if it is a time. PLACE has dcs.json, the clone's own settings in the
# DCS, and sql/N for each file that is run: the file in a folder, and `database`. OPTIONS are those of pgherd's sessions.

# in_database NAME ARGUMENT...: psql. Names are taken as they are, and not as connection strings.
in_database() {
  local name=$1
  shift
  PGDATABASE=$name PGOPTIONS=$OPTIONS "$BIN/psql" -qX -v ON_ERROR_STOP=1 -h "$DATA" -p "$PORT" -U postgres "$@"
}

runs() { "$BIN/pg_ctl" -D "$DATA" -s status >/dev/null 2>&1; }

# Starts it where no client can reach it, and only postgres on this host may log in. Nothing is archived, and no
# subscription takes changes from its publisher. The memory is not that of the other cluster's hosts.
begin_alone() {
  runs && return
  rm -f "$DATA/postmaster.pid"
  recover "$DATA" "-c archive_mode=on -c archive_command= -c max_logical_replication_workers=0 -c synchronous_commit=local \
    -c shared_buffers=256MB -c huge_pages=off -c hba_file=$PLACE/pg_hba.conf -c ident_file=$PLACE/pg_ident.conf"
}

trap 'if runs; then stop "$DATA"; fi' EXIT

case $(cat "$MARK" 2>/dev/null || true) in
  "$ID "*) ;;
  *) note begun ;;
esac

if at begun; then
  echo restore
  restore_to "$DATA" --delta "$@" | tee "$MARK.log"
  note restored
fi

if at restored; then
  echo recovery
  begin_alone
  recovered "$DATA"
  stop "$DATA"
  # Nothing that somebody has set on the other cluster may lead there: not its archive, not its replication.
  sed -i -E '/^ *(archive_|restore_command|recovery_|primary_|cluster_name|synchronous_standby_names)/d' "$DATA/postgresql.auto.conf"
  # Patroni would take the other cluster's settings for its own.
  cp "$PLACE/dcs.json" "$DATA/patroni.dynamic.json"
  note cut-off
fi

# A subscription has its place in the publisher's WAL by its name there, which the other cluster's subscription has too.
SUBSCRIPTIONS="do \$\$ declare name text; begin
  for name in select subname from pg_subscription s join pg_database d on d.oid = s.subdbid where d.datname = current_database() loop
    execute format('alter subscription %I disable', name);
    execute format('alter subscription %I set (slot_name = none)', name);
    raise warning 'the subscription % is disabled, and has no slot any more', name;
  end loop;
end \$\$"
# No password of the other cluster opens this one.
PASSWORDS="set log_statement = 'none';
  select format('alter role %I password null', rolname) from pg_authid where rolpassword is not null \\gexec"
if at cut-off; then
  begin_alone
  while IFS= read -r name; do
    in_database "$name" -c "$SUBSCRIPTIONS" </dev/null
  done < <(in_database postgres -At -c 'select datname from pg_database where datallowconn order by datname')
  echo "$PASSWORDS" | in_database postgres
  note closed
fi

# run N: runs its file in one transaction, and notes in the same one that it has. A second time, it does nothing.
run() {
  local name file ran
  name=$(cat "$PLACE/sql/$1/database")
  file=$(ls -A "$PLACE/sql/$1/file")
  ran=$(in_database "$name" -At -c "select count(*) from pg_db_role_setting, unnest(setconfig) as item
    where setrole = 0 and setdatabase = (select oid from pg_database where datname = current_database()) and item = 'pgherd.ran=$ID.$1'")
  [ "$ran" = 0 ] || return 0
  echo "$file in $name"
  cd "$PLACE/sql/$1/file" || exit 1
  PGDATABASE=$name "$BIN/psql" -qX -1 -v ON_ERROR_STOP=1 -h "$DATA" -p "$PORT" -U postgres -f "$file" \
    -c "do \$\$ begin execute format('alter database %I set pgherd.ran = %L', current_database(), '$ID.$1'); end \$\$" || {
    echo "pgherd-hint: correct $file; the same command goes on from here" >&2
    exit 1
  }
  cd / || exit 1
}

if at closed; then
  if [ -d "$PLACE/sql/1" ]; then
    begin_alone
    n=1
    while [ -d "$PLACE/sql/$n" ]; do
      run "$n"
      n=$((n + 1))
    done
  fi
  note ran
fi

if at ran; then
  n=1
  while [ -d "$PLACE/sql/$n" ]; do
    begin_alone
    in_database "$(cat "$PLACE/sql/$n/database")" -c "do \$\$ begin execute format('alter database %I reset pgherd.ran', current_database()); end \$\$"
    n=$((n + 1))
  done
  if runs; then stop "$DATA"; fi
  note recovered
fi
at recovered
