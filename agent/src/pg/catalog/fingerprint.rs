//! SQL of the catalogue fingerprint: one row per object, with a digest of its definition that is the same on every major from 14 to 18
//! when the schema is the same (field rule 5).
//!
//! Definitions that the server writes out from a parsed form (views, defaults, checks, indexes …) are compared without white space,
//! parentheses and qualifiers, because majors write those differently; owners, columns, names and rights are compared as they are.
//! Left out: our own schema, RDS's own, system and temporary schemas, members of extensions, publications and subscriptions, invalid
//! indexes (`pg_upgrade` leaves them behind), `NOT NULL` as a constraint (18 has it, the column has it everywhere), the right `MAINTAIN` (17).

/// The objects of this database: kind, name, digest.
pub const SCHEMA_OBJECTS: &str = "with objects(kind, name, definition) as (
      select 'schema', quote_ident(n.nspname), concat_ws('|', (select rolname from pg_roles where oid = n.nspowner), (select
      string_agg(concat_ws(':', coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable), ',' order by coalesce(g.rolname,
      'public'), x.privilege_type, x.is_grantable) from aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x left join pg_roles g
      on g.oid = x.grantee where x.privilege_type <> 'MAINTAIN')) from pg_namespace n where n.nspname !~ '^pg_' and n.nspname not in
      ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where e.classid =
      'pg_namespace'::regclass and e.objid = n.oid and e.deptype = 'e')
      union all select case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'c' then 'type' when 'f'
      then 'foreign table' else 'table' end, format('%I.%I', n.nspname, c.relname), concat_ws('|', c.relkind, (select rolname from pg_roles
      where oid = c.relowner), c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, (select string_agg(o, ',' order by
      o) from unnest(c.reloptions) o), pg_get_expr(c.relpartbound, c.oid), case when c.relkind = 'p' then pg_get_partkeydef(c.oid) end,
      (select string_agg(i.inhparent::regclass::text, ',' order by i.inhseqno) from pg_inherits i where i.inhrelid = c.oid), (select amname
      from pg_am where oid = c.relam and c.relkind in ('r', 'm')), (select spcname from pg_tablespace where oid = c.reltablespace), case
      when c.relkind = 'S' then (select string_agg(concat_ws(':', coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable), ','
      order by coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable) from aclexplode(coalesce(c.relacl, acldefault('s',
      c.relowner))) x left join pg_roles g on g.oid = x.grantee where x.privilege_type <> 'MAINTAIN') else (select string_agg(concat_ws(':',
      coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable), ',' order by coalesce(g.rolname, 'public'), x.privilege_type,
      x.is_grantable) from aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x left join pg_roles g on g.oid = x.grantee where
      x.privilege_type <> 'MAINTAIN') end, case when c.relkind in ('v', 'm') then regexp_replace(pg_get_viewdef(c.oid),
      '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi') end, (select concat_ws(',', format_type(s.seqtypid, null), s.seqstart,
      s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle) from pg_sequence s where s.seqrelid = c.oid)) from pg_class c join
      pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c') and c.relpersistence <> 't' and
      n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists
      (select 1 from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')
      union all select 'column', format('%I.%I.%I', n.nspname, c.relname, a.attname), concat_ws('|', (select count(*) from pg_attribute b where
      b.attrelid = a.attrelid and b.attnum between 1 and a.attnum and not b.attisdropped), format_type(a.atttypid, a.atttypmod),
      a.attnotnull, regexp_replace(pg_get_expr(d.adbin, d.adrelid), '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi'), nullif(a.attidentity,
      ''), nullif(a.attgenerated, ''), (select collname from pg_collation where oid = a.attcollation), a.attstorage,
      nullif(a.attcompression, ''), coalesce(a.attstattarget::int, -1), (select string_agg(o, ',' order by o) from unnest(a.attoptions) o),
      case when a.attacl is not null then (select string_agg(concat_ws(':', coalesce(g.rolname, 'public'), x.privilege_type,
      x.is_grantable), ',' order by coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable) from aclexplode(coalesce(a.attacl,
      acldefault('c', c.relowner))) x left join pg_roles g on g.oid = x.grantee where x.privilege_type <> 'MAINTAIN') end) from pg_attribute
      a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace left join pg_attrdef d on d.adrelid = a.attrelid
      and d.adnum = a.attnum where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c') and c.relpersistence
      <> 't' and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not
      exists (select 1 from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')
      union all select 'index', format('%I.%I', n.nspname, c.relname), concat_ws('|', regexp_replace(pg_get_indexdef(c.oid),
      '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi'), i.indisreplident, i.indisclustered, i.indisunique) from pg_index i join pg_class c
      on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace where i.indisvalid and c.relpersistence <> 't' and n.nspname !~
      '^pg_' and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from
      pg_depend e where e.classid = 'pg_class'::regclass and e.objid = i.indrelid and e.deptype = 'e')
      union all select 'constraint', format('%s.%I', coalesce(nullif(o.conrelid, 0)::regclass::text, o.contypid::regtype::text), o.conname),
      concat_ws('|', o.contype, regexp_replace(pg_get_constraintdef(o.oid), '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi'),
      o.convalidated, o.condeferrable, o.condeferred) from pg_constraint o join pg_namespace n on n.oid = o.connamespace where o.contype not
      in ('n', 't') and o.conparentid = 0 and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin',
      'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = o.conrelid and
      e.deptype = 'e') and not exists (select 1 from pg_depend e where e.classid = 'pg_type'::regclass and e.objid = o.contypid and
      e.deptype = 'e')
      union all select 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), concat_ws('|', (select
      rolname from pg_roles where oid = p.proowner), (select lanname from pg_language where oid = p.prolang), p.prokind, p.provolatile,
      p.proisstrict, p.prosecdef, p.proleakproof, p.proparallel, p.procost, p.prorows, pg_get_function_result(p.oid),
      regexp_replace(pg_get_function_arguments(p.oid), '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi'), case when p.prokind = 'a' then ''
      else p.prosrc end, regexp_replace(pg_get_function_sqlbody(p.oid), '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi'), p.probin, (select
      string_agg(o, ',' order by o) from unnest(p.proconfig) o), (select concat_ws(',', g.aggkind, g.aggtransfn, g.aggfinalfn,
      format_type(g.aggtranstype, null), g.agginitval) from pg_aggregate g where g.aggfnoid = p.oid), (select string_agg(concat_ws(':',
      coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable), ',' order by coalesce(g.rolname, 'public'), x.privilege_type,
      x.is_grantable) from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x left join pg_roles g on g.oid = x.grantee where
      x.privilege_type <> 'MAINTAIN')) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname !~ '^pg_' and n.nspname
      not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where
      e.classid = 'pg_proc'::regclass and e.objid = p.oid and e.deptype = 'e')
      union all select 'type', format('%I.%I', n.nspname, t.typname), concat_ws('|', t.typtype, (select rolname from pg_roles where oid = t.typowner),
      (select string_agg(quote_literal(l.enumlabel), ',' order by l.enumsortorder) from pg_enum l where l.enumtypid = t.oid), case when
      t.typtype = 'd' then concat_ws(',', format_type(t.typbasetype, t.typtypmod), t.typnotnull, regexp_replace(t.typdefault,
      '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi')) end, (select format_type(r.rngsubtype, null) from pg_range r where r.rngtypid =
      t.oid), (select string_agg(concat_ws(':', coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable), ',' order by
      coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable) from aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) x
      left join pg_roles g on g.oid = x.grantee where x.privilege_type <> 'MAINTAIN')) from pg_type t join pg_namespace n on n.oid =
      t.typnamespace where t.typtype in ('e', 'd', 'r') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'upgrade_pilot',
      'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where e.classid = 'pg_type'::regclass and e.objid = t.oid
      and e.deptype = 'e')
      union all select 'trigger', format('%s.%I', t.tgrelid::regclass, t.tgname), concat_ws('|', regexp_replace(pg_get_triggerdef(t.oid),
      '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi'), t.tgenabled) from pg_trigger t join pg_class c on c.oid = t.tgrelid join
      pg_namespace n on n.oid = c.relnamespace where not t.tgisinternal and t.tgparentid = 0 and n.nspname !~ '^pg_' and n.nspname not in
      ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where e.classid =
      'pg_trigger'::regclass and e.objid = t.oid and e.deptype = 'e') and not exists (select 1 from pg_depend e where e.classid =
      'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')
      union all select 'policy', format('%s.%I', p.polrelid::regclass, p.polname), concat_ws('|', p.polcmd, p.polpermissive, (select
      string_agg(coalesce(r.rolname, 'public'), ',' order by r.rolname) from unnest(p.polroles) o left join pg_roles r on r.oid = o),
      regexp_replace(pg_get_expr(p.polqual, p.polrelid), '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi'),
      regexp_replace(pg_get_expr(p.polwithcheck, p.polrelid), '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi')) from pg_policy p join
      pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace where n.nspname !~ '^pg_' and n.nspname not in
      ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where e.classid =
      'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')
      union all select 'rule', format('%s.%I', r.ev_class::regclass, r.rulename), concat_ws('|', regexp_replace(pg_get_ruledef(r.oid),
      '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi'), r.ev_enabled) from pg_rewrite r join pg_class c on c.oid = r.ev_class join
      pg_namespace n on n.oid = c.relnamespace where r.rulename <> '_RETURN' and n.nspname !~ '^pg_' and n.nspname not in
      ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where e.classid =
      'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')
      union all select 'statistics', format('%I.%I', n.nspname, s.stxname), regexp_replace(pg_get_statisticsobjdef(s.oid),
      '(\"[^\"]+\"|[a-z_][a-z0-9_$]*)\\.|[\\s()]', '', 'gi') from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where
      n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools')
      union all select 'operator', format('%I.%s(%s,%s)', n.nspname, o.oprname, format_type(o.oprleft, null), format_type(o.oprright, null)),
      o.oprcode::text from pg_operator o join pg_namespace n on n.oid = o.oprnamespace where n.nspname !~ '^pg_' and n.nspname not in
      ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where e.classid =
      'pg_operator'::regclass and e.objid = o.oid and e.deptype = 'e')
      union all select 'operator class', format('%I.%I', n.nspname, o.opcname), format_type(o.opcintype, null) from pg_opclass o join pg_namespace n
      on n.oid = o.opcnamespace where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab',
      'rds_tools') and not exists (select 1 from pg_depend e where e.classid = 'pg_opclass'::regclass and e.objid = o.oid and e.deptype =
      'e')
      union all select 'collation', format('%I.%I', n.nspname, o.collname), concat_ws('|', o.collprovider, o.collisdeterministic, o.collcollate,
      o.collctype) from pg_collation o join pg_namespace n on n.oid = o.collnamespace where n.nspname !~ '^pg_' and n.nspname not in
      ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not exists (select 1 from pg_depend e where e.classid =
      'pg_collation'::regclass and e.objid = o.oid and e.deptype = 'e')
      union all select 'text search', format('%I.%I', n.nspname, o.cfgname), '' from pg_ts_config o join pg_namespace n on n.oid = o.cfgnamespace
      where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rdslab', 'rds_tools') and not
      exists (select 1 from pg_depend e where e.classid = 'pg_ts_config'::regclass and e.objid = o.oid and e.deptype = 'e')
      union all select 'cast', format('%s as %s', format_type(o.castsource, null), format_type(o.casttarget, null)), concat_ws('|', o.castcontext,
      o.castmethod) from pg_cast o where o.oid >= 16384 and not exists (select 1 from pg_depend e where e.classid = 'pg_cast'::regclass and
      e.objid = o.oid and e.deptype = 'e')
      union all select 'event trigger', quote_ident(o.evtname), concat_ws('|', o.evtevent, o.evtenabled, o.evtfoid::regproc, (select string_agg(o, ','
      order by o) from unnest(o.evttags) o)) from pg_event_trigger o where (select rolname from pg_roles where oid = o.evtowner) !~ '^rds'
      and not exists (select 1 from pg_depend e where e.classid = 'pg_event_trigger'::regclass and e.objid = o.oid and e.deptype = 'e')
      union all select 'foreign server', quote_ident(o.srvname), concat_ws('|', (select rolname from pg_roles where oid = o.srvowner), (select fdwname
      from pg_foreign_data_wrapper where oid = o.srvfdw), (select string_agg(o, ',' order by o) from unnest(o.srvoptions) o)) from
      pg_foreign_server o where not exists (select 1 from pg_depend e where e.classid = 'pg_foreign_server'::regclass and e.objid = o.oid
      and e.deptype = 'e')
      union all select 'default rights', format('%s in %s on %s', (select rolname from pg_roles where oid = o.defaclrole), coalesce((select nspname
      from pg_namespace where oid = o.defaclnamespace), 'every schema'), o.defaclobjtype), (select string_agg(concat_ws(':',
      coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable), ',' order by coalesce(g.rolname, 'public'), x.privilege_type) from
      aclexplode(o.defaclacl) x left join pg_roles g on g.oid = x.grantee where x.privilege_type <> 'MAINTAIN') from pg_default_acl o where
      (select rolname from pg_roles where oid = o.defaclrole) !~ '^rds'
      ) select kind, name, left(encode(sha256(convert_to(coalesce(definition, ''), 'UTF8')), 'hex'), 16) from objects order by 1, 2";

/// What belongs to the whole server: databases, roles, memberships, settings that roles and databases carry. Passwords are not looked at.
pub const CLUSTER_OBJECTS: &str = "with objects(kind, name, definition) as (
      select 'database', quote_ident(d.datname), concat_ws('|', (select rolname from pg_roles where oid = d.datdba),
      pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, (select string_agg(concat_ws(':', coalesce(g.rolname, 'public'),
      x.privilege_type, x.is_grantable), ',' order by coalesce(g.rolname, 'public'), x.privilege_type, x.is_grantable) from
      aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x left join pg_roles g on g.oid = x.grantee where x.privilege_type <>
      'MAINTAIN')) from pg_database d where d.datallowconn and not d.datistemplate and d.datname <> 'rdsadmin'
      union all select 'role', quote_ident(r.rolname), concat_ws('|', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
      r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil) from pg_roles r where r.rolname !~ '^(pg_|rds)'
      union all select 'membership', format('%s of %s', m.rolname, r.rolname), bool_or(a.admin_option)::text from pg_auth_members a join pg_roles m on
      m.oid = a.member join pg_roles r on r.oid = a.roleid where r.rolname !~ '^(pg_|rds)' and m.rolname !~ '^(pg_|rds)' and m.rolname <>
      current_user group by m.rolname, r.rolname
      union all select 'settings', format('role %s in database %s', coalesce(r.rolname, 'any'), coalesce(d.datname, 'any')), (select string_agg(o, ','
      order by o) from unnest(s.setconfig) o) from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on
      d.oid = s.setdatabase where coalesce(r.rolname, '') !~ '^rds' and coalesce(d.datname, '') <> 'rdsadmin'
      ) select kind, name, left(encode(sha256(convert_to(coalesce(definition, ''), 'UTF8')), 'hex'), 16) from objects order by 1, 2";

/// Installed extensions.
pub const EXTENSION_VERSIONS: &str = "select extname::text, extversion from pg_extension order by 1";

/// Settings in force for a new session, and whether somebody set them. Those that name a machine, a file or a secret are left out.
pub const SETTINGS_IN_FORCE: &str = "select name, reset_val || coalesce(unit, ''), reset_val is distinct from boot_val from pg_settings
      where context <> 'internal' and name !~ '(_file|_directory|_directories|_command|_conninfo|_slot_name|^listen_addresses|^port|^cluster_name)$'
        and name !~ '^(recovery_target|ssl_|krb_|primary_|transaction_|bonjour|hba_|unix_socket|archive_|cron.host|application_name)'
        and name not in ('in_hot_standby', 'event_source', 'lc_messages', 'log_timezone', 'session_authorization', 'role', 'is_superuser',
          'synchronous_standby_names', 'client_encoding', 'seed') order by 1";
