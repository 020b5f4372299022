-- The database role that pilot-agent logs in with: what it needs, and nothing more.
--
-- Run it as the master user, with psql, in EVERY database of the cluster that takes connections, before the first
-- preflight. It may be run again at any time: what is there already stays as it is. Run it again when new owners of
-- tables, new databases or pg_cron come, and always before an upgrade begins: a GRANT while green exists is a change
-- that is not replicated, and degrades the deployment.
--
--   for db in $(psql "$URL" -Atc "select datname from pg_database where datallowconn and datname not in ('rdsadmin', 'template0', 'template1')")
--   do psql "$URL" -d "$db" -v ON_ERROR_STOP=1 -f agent_role.sql; done
--
-- The role's name is upgrade_pilot; another one with  -v role=NAME.
-- It has no password after this script. Give it one in psql with  \password upgrade_pilot  (the text then never stands in
-- a log), or, with IAM database authentication, GRANT rds_iam to it and let `password_command` print the token.
--
-- What each right is for:
--   member of rds_superuser      altering extensions on the new production; on RDS it contains pg_monitor and pg_signal_backend
--   pg_monitor                   sessions of everybody, slots, settings, and how far replication is
--   pg_signal_backend            ending sessions that hold up slot creation or the cut; never a superuser's, never rdsadmin's
--   pg_read_all_data             reading every table for the comparison of both sides (14 and later)
--   pg_maintain                  VACUUM and ANALYZE of every table on green (17 and later)
--   member of every owner        VACUUM, ANALYZE and REINDEX on green, REPLICA IDENTITY where it was approved, setval of
--                                sequences, materialized views, partition maintenance, ALTER EXTENSION on the new production.
--                                VACUUM by a stranger only warns and skips; rds_superuser is a stranger, too
--   member of the database's     the same VACUUM and ANALYZE of all its tables, where an owner's role cannot be given
--   owner
--   UPDATE on sequences          setval after the cut, where an owner's role cannot be given
--   CREATE on the database       its own schema upgrade_pilot: marker, probe, ledger, what it must put back
--   pg_cron's tables             seeing everybody's jobs, switching them off and on again, the test job after the cut
--   rds_tools (RDS, not Aurora)  where a switchover stands, by the servers' own word; before green is made, so that green has it
--   pg_partman's tables          premake and automatic_maintenance of partition sets, run_maintenance
--
-- It is no superuser, has no REPLICATION, and may make neither roles nor databases.
--
-- From PostgreSQL 16 on nobody but a superuser can give away membership in the master user's own role. Where the master user
-- itself owns tables, give the database to a role that both are members of: its owner may vacuum and analyze everything in it.
--   create role NAME_owner;  grant NAME_owner to current_user, upgrade_pilot;  alter database NAME owner to NAME_owner;
-- That is enough unless the spec names tables to REINDEX or to give REPLICA IDENTITY FULL, policies hide rows, or there are
-- materialized views (before 17): those objects are given to it, too:  alter table T owner to NAME_owner;
-- An extension's owner cannot be changed: one that the master user owns is altered by right of rds_superuser there, and where
-- that is refused the upgrade stops after the cut for a person to alter it.

\set ON_ERROR_STOP on
\if :{?role}
\else
  \set role upgrade_pilot
\endif
select set_config('pilot.role', :'role', false) as "role" \gset pilot_

-- The role itself. It never bypasses row security, so policies that hide rows from it would hide them from comparisons:
-- preflight's grants below make it a member of the owners, whom policies do not bind unless they are FORCEd.
select format('create role %I login nosuperuser nocreatedb nocreaterole inherit', current_setting('pilot.role'))
 where not exists (select from pg_roles where rolname = current_setting('pilot.role'))
\gexec

-- Roles of PostgreSQL and of RDS, as far as this server has them. One that the master user may not give is named; it is
-- missed only where no other right stands for it (membership in every owner, in place of pg_maintain, say).
do $roles$
declare
  agent text := current_setting('pilot.role');
  given record;
begin
  for given in
    select oid, rolname::text as name from pg_roles
     where rolname in ('rds_superuser', 'pg_monitor', 'pg_signal_backend', 'pg_read_all_data', 'pg_maintain')
     order by rolname <> 'rds_superuser', 2
  loop
    if not pg_has_role(agent, given.oid, 'usage') then
      begin
        execute format('grant %I to %I', given.name, agent);
      exception when insufficient_privilege then
        raise warning '% may not grant role %', current_user, given.name;
      end;
    end if;
  end loop;
end
$roles$;

-- Owners: of the database, of its extensions, and of everything in it that is vacuumed, compared, sequenced or refreshed.
do $owners$
declare
  agent text := current_setting('pilot.role');
  owner record;
begin
  for owner in
    select distinct r.oid, r.rolname::text as name
      from pg_roles r
     where not r.rolsuper and r.rolname <> agent and r.rolname !~ '^(rds|pg_)'
       and (r.oid = (select datdba from pg_database where datname = current_database())
            or exists (select from pg_extension e where e.extowner = r.oid)
            or exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                        where c.relowner = r.oid and c.relkind in ('r', 'p', 'm', 'S') and c.relpersistence <> 't'
                          and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'rdsadmin', 'rds_tools')))
     order by 2
  loop
    if not pg_has_role(agent, owner.oid, 'usage') then
      begin
        execute format('grant %I to %I', owner.name, agent);
      exception when insufficient_privilege then
        raise warning 'database %: % may not grant role %: let a role that administers it run: grant % to %',
          current_database(), current_user, owner.name, quote_ident(owner.name), quote_ident(agent);
      end;
    end if;
  end loop;
end
$owners$;

-- Sequences whose owner could not be given: the right to set them is enough.
do $sequences$
declare
  agent text := current_setting('pilot.role');
  sequence oid;
begin
  for sequence in
    select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
     where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and r.rolname !~ '^rds'
       and n.nspname not in ('information_schema', 'rdsadmin', 'rds_tools')
       and case c.relkind when 'S' then not has_sequence_privilege(agent, c.oid, 'update') end
  loop
    begin
      execute format('grant select, update on sequence %s to %I', sequence::regclass, agent);
    exception when insufficient_privilege then
      raise warning 'database %: % may not grant rights on sequence %', current_database(), current_user, sequence::regclass;
    end;
  end loop;
end
$sequences$;

-- Its own schema is made by the agent, in prerequisites, and removed by cleanup or by a rollback.
select format('grant connect, create on database %I to %I', current_database(), current_setting('pilot.role'))
\gexec

-- pg_cron, in the database that it lives in. Its row policy shows every user only their own jobs; a further policy shows the
-- agent all of them. Only the tables' owner may make one: where that is not the master user, this says what is missing.
do $cron$
declare
  agent text := current_setting('pilot.role');
  relation text;
begin
  if to_regclass('cron.job') is null then
    return;
  end if;
  begin
    execute format('grant usage on schema cron to %I', agent);
    execute format('grant select, update, delete on cron.job to %I', agent);
    if to_regclass('cron.job_run_details') is not null then
      execute format('grant select on cron.job_run_details to %I', agent);
    end if;
  exception when insufficient_privilege then
    raise warning 'database %: % may not grant rights on pg_cron''s tables to %', current_database(), current_user, agent;
  end;
  foreach relation in array array['cron.job', 'cron.job_run_details'] loop
    continue when to_regclass(relation) is null
      or pg_has_role(agent, (select relowner from pg_class where oid = to_regclass(relation)), 'usage')
      or not (select relrowsecurity from pg_class where oid = to_regclass(relation))
      or exists (select from pg_policy p where p.polrelid = to_regclass(relation)
                   and pg_get_expr(p.polqual, p.polrelid) = 'true'
                   and exists (select from unnest(p.polroles) as to_role(id)
                                where to_role.id = 0 or pg_has_role(agent, to_role.id, 'usage')));
    begin
      execute format('create policy upgrade_pilot on %s to %I using (true) with check (true)', relation, agent);
    exception when insufficient_privilege then
      raise warning 'database %: % may not make a policy on %, so % sees only its own cron jobs; preflight will say so',
        current_database(), current_user, relation, agent;
    end;
  end loop;
end
$cron$;

-- rds_tools, where it is there: what the servers say of a switchover. Without it nothing fails, the agent looks by itself.
do $tools$
declare
  agent text := current_setting('pilot.role');
begin
  if to_regproc('rds_tools.show_topology') is null then
    return;
  end if;
  execute format('grant usage on schema rds_tools to %I', agent);
  execute format('grant execute on all functions in schema rds_tools to %I', agent);
exception when insufficient_privilege then
  raise warning 'database %: % may not grant rights on rds_tools to %', current_database(), current_user, agent;
end
$tools$;

-- pg_partman, in whatever schema it lives: reading and setting premake and automatic_maintenance, and its functions.
do $partman$
declare
  agent text := current_setting('pilot.role');
  home text;
begin
  select n.nspname into home from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_partman';
  if home is null then
    return;
  end if;
  begin
    execute format('grant usage on schema %I to %I', home, agent);
    execute format('grant select, insert, update, delete on all tables in schema %I to %I', home, agent);
    execute format('grant execute on all functions in schema %I to %I', home, agent);
    execute format('grant execute on all procedures in schema %I to %I', home, agent);
  exception when insufficient_privilege then
    raise warning 'database %: % may not grant rights on pg_partman to %', current_database(), current_user, agent;
  end;
end
$partman$;

-- What preflight would still miss here, in its own words; no row means that nothing is missing.
with agent as (
  select current_setting('pilot.role') as name,
         pg_has_role(current_setting('pilot.role'), (select datdba from pg_database where datname = current_database()), 'usage') as runs_database,
         exists (select from pg_roles m where m.rolname = 'pg_maintain' and pg_has_role(current_setting('pilot.role'), m.oid, 'usage')) as maintains
), things as (
  select c.oid, c.relkind, c.relrowsecurity, r.rolname, pg_has_role(agent.name, c.relowner, 'usage') as owns
    from agent, pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_roles r on r.oid = c.relowner
   where c.relkind in ('r', 'p', 'm', 'S') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and r.rolname !~ '^rds'
     and n.nspname not in ('information_schema', 'upgrade_pilot', 'rdsadmin', 'rds_tools')
)
select distinct format('may not vacuum tables of %I in %I', rolname, current_database()) as "still missing" from things, agent
 where relkind in ('r', 'p', 'm') and not owns and not maintains and not runs_database
union all
select distinct format('may not refresh materialized views of %I in %I', rolname, current_database()) from things, agent
 where relkind = 'm' and not owns and not maintains
union all
select distinct format('may not read tables of %I in %I', rolname, current_database()) from things, agent
 where relkind in ('r', 'p', 'm') and not has_table_privilege(agent.name, oid, 'select')
union all
select distinct format('policies hide rows of tables of %I in %I', rolname, current_database()) from things
 where relrowsecurity and not owns
union all
select distinct format('may not set sequences of %I in %I', rolname, current_database()) from things, agent
 where case relkind when 'S' then not has_sequence_privilege(agent.name, oid, 'update') end
union all
select format('not a member of %I, who owns extension %I in %I', r.rolname, e.extname, current_database())
  from pg_extension e join pg_roles r on r.oid = e.extowner
 where not r.rolsuper and r.rolname !~ '^rds' and r.rolname <> current_setting('pilot.role')
   and not pg_has_role(current_setting('pilot.role'), r.oid, 'member')
   and (current_setting('server_version_num')::int < 160000
        or not exists (select from pg_roles s where s.rolname = 'rds_superuser' and pg_has_role(current_setting('pilot.role'), s.oid, 'member')))
union all
select format('no CREATE on database %I', current_database())
 where not has_database_privilege(current_setting('pilot.role'), current_database(), 'create')
 order by 1;
