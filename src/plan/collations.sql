select :SERVER_VERSION_NUM >= 150000 as has_version, false as is_old \gset
\if :has_version
select datcollversion is distinct from pg_database_collation_actual_version(oid) and datcollversion is not null as is_old
  from pg_database where datname = current_database() \gset
select json_build_object('database', datname, 'recorded', datcollversion, 'actual', pg_database_collation_actual_version(oid))
  from pg_database where datname = current_database() and :'is_old'::boolean;
\endif
with old as (
  select oid, collname, collnamespace, collversion, pg_collation_actual_version(oid) as actual from pg_collation
  where collversion <> pg_collation_actual_version(oid)
), uses as (
  select i.indexrelid, i.indisvalid, o as coll from pg_index i, unnest(i.indcollation::oid[]) as o
  where o in (select oid from old) or (o = 100 and :'is_old'::boolean)
)
select json_build_object('database', current_database(), 'collation', format('%I.%I', n.nspname, old.collname),
    'recorded', old.collversion, 'actual', old.actual)
  from old join pg_namespace n on n.oid = old.collnamespace where old.oid in (select coll from uses)
union all
select json_build_object('database', current_database(), 'index', format('%I.%I', n.nspname, c.relname), 'valid', bool_and(uses.indisvalid))
  from uses join pg_class c on c.oid = uses.indexrelid join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'i' and n.nspname not in ('pg_catalog', 'pg_toast') group by n.nspname, c.relname;
