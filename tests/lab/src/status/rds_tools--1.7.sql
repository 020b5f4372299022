-- Rights are the creator's to give: USAGE on the schema and EXECUTE on the functions.
create function @extschema@.dbi_resource_id() returns text language sql stable security definer
  as $$select pg_catalog.pg_read_file('rdslab.json', 0, 1048576, true)::pg_catalog.json operator(pg_catalog.->>) 'resource'$$;
create function @extschema@.show_topology(client text default 'unknown', out id text, out endpoint text, out port int,
    out role text, out status text, out version text, out update_stamp timestamptz)
  returns setof record language sql stable security definer
  as $$select t.id, t.endpoint, t.port, t.role, t.status, t.version, t.update_stamp
    from pg_catalog.json_to_recordset(pg_catalog.pg_read_file('rdslab.json', 0, 1048576, true)::pg_catalog.json
      operator(pg_catalog.->) 'rows')
      as t(id text, endpoint text, port int, role text, status text, version text, update_stamp timestamptz)$$;
revoke all on function @extschema@.dbi_resource_id(), @extschema@.show_topology(text) from public;
grant usage on schema @extschema@ to rds_superuser with grant option;
grant execute on function @extschema@.dbi_resource_id(), @extschema@.show_topology(text) to rds_superuser with grant option;
