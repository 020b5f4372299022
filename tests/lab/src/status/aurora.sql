-- Aurora's functions, in one database. Single functions: an overload would make drivers' casts to regproc fail.
create or replace function pg_catalog.aurora_version() returns text language sql stable
  as $$select pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1)$$;
create or replace function pg_catalog.aurora_db_instance_identifier() returns text language sql stable security definer
  as $$select pg_catalog.pg_read_file('rdslab.json', 0, 1048576, true)::pg_catalog.json operator(pg_catalog.->>) 'instance'$$;
create or replace function pg_catalog.aurora_replica_status(out server_id text, out session_id text, out cpu real,
    out replica_lag_in_msec real, out last_update_timestamp timestamptz) returns setof record language sql stable security definer
  as $$select t.id, case when t.writer then 'MASTER_SESSION_ID' else pg_catalog.md5(t.id) end, 1::pg_catalog.float4,
      0::pg_catalog.float4, pg_catalog.clock_timestamp()
    from pg_catalog.json_to_recordset(pg_catalog.pg_read_file('rdslab.json', 0, 1048576, true)::pg_catalog.json
      operator(pg_catalog.->) 'topology') as t(id text, writer bool)$$;
create or replace function pg_catalog.get_blue_green_fast_switchover_metadata(client text default 'unknown', out id text,
    out endpoint text, out port int, out role text, out status text, out version text, out update_stamp timestamptz)
  returns setof record language sql stable security definer
  as $$select t.id, t.endpoint, t.port, t.role, t.status, t.version, t.update_stamp
    from pg_catalog.json_to_recordset(pg_catalog.pg_read_file('rdslab.json', 0, 1048576, true)::pg_catalog.json
      operator(pg_catalog.->) 'rows')
      as t(id text, endpoint text, port int, role text, status text, version text, update_stamp timestamptz)$$;
