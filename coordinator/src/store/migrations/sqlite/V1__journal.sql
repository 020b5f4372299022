-- The identity of this store and the one counter that every epoch comes from.
create table store (
    only_row integer primary key check (only_row = 1),
    id       text    not null,
    epoch    integer not null
) strict;

-- One row a run. At most one active run a subject: the index below is that rule.
create table runs (
    id         text primary key,
    subject    text not null,
    created_at text not null,
    outcome    text,
    number     integer not null unique
) strict;
create unique index one_active_run_a_subject on runs (subject) where outcome is null;

-- The journal. Never updated, never deleted.
create table facts (
    run   text    not null references runs (id),
    seq   integer not null,
    epoch integer not null,
    at    text    not null,
    fact  text    not null,
    primary key (run, seq)
) strict, without rowid;

-- What belongs to a run and is no fact of the engine's. Written just before the run is created.
create table beside (
    run   text primary key,
    -- Fixed when the run is created: roster, versions, who asked. JSON.
    about text not null,
    -- The newest wish told to the agents, as JSON; last value only, nothing decides on it.
    wish  text
) strict;

create table leases (
    subject    text primary key,
    epoch      integer not null,
    holder     text    not null,
    address    text    not null,
    expires_ms integer not null
) strict;

-- The inbox: what people asked for, before the driver makes it a fact.
create table asks (
    n       integer primary key autoincrement,
    run     text not null references runs (id),
    ask     text not null,
    by      text not null,
    at      text not null,
    request text not null,
    unique (run, ask)
) strict;

-- Measurements over time, for charts; bounded, and nothing decides on them.
create table samples (
    n     integer primary key autoincrement,
    run   text not null,
    at_ms integer not null,
    name  text not null,
    value real not null
) strict;
create index samples_of_a_run on samples (run, n);
