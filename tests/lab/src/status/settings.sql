-- Drivers read `rds.extensions` from pg_settings, where a custom setting of the configuration file never stands.
create or replace view pg_catalog.pg_settings as
  select * from pg_catalog.pg_show_all_settings() a
  union all
  select v.name, v.setting, null::text, 'Customized Options'::text, v.says, null::text, v.context, v.kind, 'configuration file'::text,
         null::text, null::text, null::text[], v.boot, v.setting, null::text, null::int4, false
    from (values
      ('rds.extensions'::text, pg_catalog.current_setting('rds.extensions', true), 'Lists the extensions that are supported'::text,
       'internal'::text, 'string'::text, pg_catalog.current_setting('rds.extensions', true)),
      ('rds.logical_replication', pg_catalog.current_setting('rds.logical_replication', true), 'Enables logical decoding', 'postmaster', 'bool', 'off')
    ) as v(name, setting, says, context, kind, boot)
   where v.setting is not null;
