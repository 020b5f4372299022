-- How far each hook was told the news of a run: the first fact that it was not told of. A row goes with the last news.
create table bookmarks (
    run  text   not null,
    hook text   not null,
    next bigint not null,
    primary key (run, hook)
);
