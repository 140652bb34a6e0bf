-- tables of estudio_core.vectordb; every statement may be run again

-- One row per release: a served model and the collection that was built with it.
CREATE TABLE IF NOT EXISTS estudio.deployments (
    release_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin        text NOT NULL,
    model_name    text NOT NULL,
    model_version text NOT NULL,
    collection_id text NOT NULL UNIQUE,
    state         text NOT NULL DEFAULT 'building'
        CHECK (state IN ('building', 'built', 'verified', 'live', 'previous', 'retired', 'failed')),
    index_info    jsonb NOT NULL,
    stats         jsonb NOT NULL DEFAULT '{}',
    run_id        text NOT NULL,
    reason        text,
    -- A change-log entry is in the collection when seq <= applied_seq or xid < applied_xid (see change_log.py).
    applied_seq   bigint NOT NULL,
    applied_xid   xid8 NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    built_at      timestamptz,
    verified_at   timestamptz,
    live_at       timestamptz,
    previous_at   timestamptz,
    retired_at    timestamptz,
    failed_at     timestamptz,
    UNIQUE (plugin, run_id)
);
CREATE UNIQUE INDEX IF NOT EXISTS deployments_one_live ON estudio.deployments (plugin) WHERE state = 'live';

-- What a search of a plugin reads: query encoder and collection, moved together by one UPDATE.
CREATE TABLE IF NOT EXISTS estudio.pointers (
    plugin              text PRIMARY KEY,
    release_id          bigint NOT NULL REFERENCES estudio.deployments,
    previous_release_id bigint REFERENCES estudio.deployments,
    switched_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    switched_by         text NOT NULL
);

-- Every acknowledged write, so that collections that were not live at that moment can catch up.
CREATE TABLE IF NOT EXISTS estudio.change_log (
    seq          bigserial PRIMARY KEY,
    plugin       text NOT NULL,
    op           text NOT NULL CHECK (op IN ('upsert', 'delete')),
    object_id    text NOT NULL,
    data         jsonb,
    payload      jsonb,
    user_id      text,
    original_id  text,
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS change_log_plugin_seq ON estudio.change_log (plugin, seq);

CREATE TABLE IF NOT EXISTS estudio.optimizations (
    collection_id text NOT NULL,
    name          text NOT NULL,
    applied_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (collection_id, name)
);

CREATE TABLE IF NOT EXISTS estudio.release_events (
    event_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin     text NOT NULL,
    release_id bigint REFERENCES estudio.deployments,
    event      text NOT NULL,
    actor      text NOT NULL,
    details    jsonb NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS release_events_plugin ON estudio.release_events (plugin, event_id);
