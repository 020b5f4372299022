-- The store of several coordinators. Everything is in a schema of its own, which is the search path while this runs.

-- The identity of this store: agents obey one only.
create table store (
    only_row boolean primary key default true check (only_row),
    id       text    not null
);
insert into store (id) values (gen_random_uuid()::text);

-- Every epoch comes from here; it only rises.
create sequence epochs as bigint;

-- One row a run. At most one active run a subject: the index below is that rule.
create table runs (
    id         text   primary key,
    subject    text   not null,
    created_at text   not null,
    outcome    text,
    number     bigint not null generated always as identity unique
);
create unique index one_active_run_a_subject on runs (subject) where outcome is null;

-- The journal. Never updated, never deleted. `sum` is over the whole row; a row that does not agree with it is refused.
create table facts (
    run   text   not null references runs (id),
    seq   bigint not null,
    epoch bigint not null,
    at    text   not null,
    fact  text   not null,
    sum   text   not null,
    primary key (run, seq)
);

-- What belongs to a run and is no fact of the engine's. Written just before the run is created.
create table beside (
    run        text   primary key,
    -- Fixed when the run is created: roster, versions, who asked. JSON.
    about      text   not null,
    -- The newest wish told to the agents, as JSON, and under which epoch; last value only, nothing decides on it.
    wish       text,
    wish_epoch bigint not null default 0
);

-- Who may append, until when by this server's clock. A row that was given back stays, expired, so that its epoch is not forgotten.
create table leases (
    subject    text        primary key,
    epoch      bigint      not null,
    holder     text        not null,
    address    text        not null,
    expires_at timestamptz not null
);

-- The inbox: what people asked for, before the driver makes it a fact.
create table asks (
    n       bigint not null generated always as identity primary key,
    run     text   not null references runs (id),
    ask     text   not null,
    by      text   not null,
    at      text   not null,
    request text   not null,
    unique (run, ask)
);

-- Measurements over time, for charts; bounded, and nothing decides on them.
create table samples (
    n     bigint not null generated always as identity primary key,
    run   text   not null,
    at_ms bigint not null,
    name  text   not null,
    value double precision not null
);
create index samples_of_a_run on samples (run, n);
