# shellcheck shell=sh disable=SC2154 # the caller sets them
# Updates the extensions of every database to the versions that came with the new PostgreSQL.
printf '%s\n' "select 'dbname=''' || replace(replace(datname, '\\', '\\\\'), '''', '\\''') || '''' from pg_database where datallowconn" |
  local_psql "$PORT" -At >"$MARK.databases"
while read -r database; do
  echo "select format('%I', e.extname) from pg_extension e join pg_available_extensions a on a.name = e.extname
    where a.default_version <> e.extversion" | local_psql "$PORT" -At -d "$database" >"$MARK.extensions"
  while read -r extension; do
    # What an extension refuses is told; the upgrade is complete all the same.
    if said=$(echo "alter extension $extension update" | local_psql "$PORT" -v ON_ERROR_STOP=1 -d "$database" 2>&1); then
      echo "$extension was updated ($database)"
    else
      echo "$extension could not be updated ($database): $said"
    fi
  done <"$MARK.extensions"
done <"$MARK.databases"
rm -f "$MARK.databases" "$MARK.extensions"
