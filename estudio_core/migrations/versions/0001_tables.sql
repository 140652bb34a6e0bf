-- Every statement may be run on tables that are there already, of whichever version before migrations had numbers.

-- The oldest code that works with these tables. A migration that it cannot work with says so:
-- UPDATE estudio.alembic_version SET serves_from = '<number of that migration>'
ALTER TABLE estudio.alembic_version ADD COLUMN IF NOT EXISTS serves_from text NOT NULL DEFAULT '0001';

-- Clickstream under the names of User Behavior Insights 1.3 (https://www.ubisearch.dev).
-- Append-only. No foreign key: an event may arrive before its query, or long after it.

CREATE TABLE IF NOT EXISTS estudio.ubi_queries (
    query_id                text PRIMARY KEY,
    client_id               text,
    user_query              text NOT NULL,
    query_response_hit_ids  text[] NOT NULL DEFAULT '{}',  -- in the order shown
    query_response_scores   double precision[],            -- parallel to the ids; NULL where not known
    "timestamp"             timestamptz NOT NULL,
    application             text NOT NULL,
    query_attributes        jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS ubi_queries_by_time
    ON estudio.ubi_queries (application, "timestamp" DESC, query_id DESC);

-- When the row came, whatever its own time: logs that are imported late are new all the same. NULL: not known.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'estudio.ubi_queries'::regclass AND attname = 'logged_at')
    THEN
        ALTER TABLE estudio.ubi_queries ADD COLUMN logged_at timestamptz;
        ALTER TABLE estudio.ubi_queries ALTER COLUMN logged_at SET DEFAULT clock_timestamp();
    END IF;
END $$;

CREATE INDEX IF NOT EXISTS ubi_queries_by_arrival
    ON estudio.ubi_queries (application, coalesce(logged_at, "timestamp"));

CREATE TABLE IF NOT EXISTS estudio.ubi_events (
    event_id          text PRIMARY KEY,
    action_name       text NOT NULL,
    query_id          text NOT NULL,
    client_id         text,
    user_query        text,
    object_id         text,
    position_ordinal  integer,                             -- 1 is the topmost result
    "timestamp"       timestamptz NOT NULL,
    event_attributes  jsonb NOT NULL DEFAULT '{}',
    application       text NOT NULL
);

CREATE INDEX IF NOT EXISTS ubi_events_by_query
    ON estudio.ubi_events (query_id, application);

-- Releases, collections and what is written to them.

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
    -- A change-log entry is in the collection when seq <= applied_seq or xid < applied_xid (see catching_up.py).
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
    data         json,  -- not jsonb: the order of fields is the order of the text that is embedded
    payload      jsonb,
    user_id      text,
    original_id  text,
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
DO $$ BEGIN
    IF EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'estudio' AND table_name = 'change_log'
               AND column_name = 'data' AND data_type = 'jsonb') THEN
        ALTER TABLE estudio.change_log ALTER COLUMN data TYPE json;
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS change_log_plugin_seq ON estudio.change_log (plugin, seq);
CREATE INDEX IF NOT EXISTS change_log_plugin_xid ON estudio.change_log (plugin, xid);
CREATE INDEX IF NOT EXISTS change_log_object ON estudio.change_log (plugin, object_id, seq);
CREATE INDEX IF NOT EXISTS change_log_personal ON estudio.change_log (plugin, original_id) WHERE user_id IS NOT NULL;

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

-- How far the live items of a plugin follow its item source.
CREATE TABLE IF NOT EXISTS estudio.sync_state (
    plugin      text PRIMARY KEY,
    source      text NOT NULL,  -- what was read, and how changes were found; anything else compares all items again
    watermark   timestamptz,    -- when the last sync began to read, by the clock of the source
    compared_at timestamptz NOT NULL,  -- all items were compared last
    synced_at   timestamptz NOT NULL,
    counts      jsonb NOT NULL,
    release_id  bigint  -- the only release that rows were compared with; null where there were several
);
ALTER TABLE estudio.sync_state ADD COLUMN IF NOT EXISTS release_id bigint;

-- Collections that were made before these columns were.
DO $$
DECLARE
    objects text;
BEGIN
    FOR objects IN
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'estudio' AND c.relname LIKE 'c\_%\_objects'
        AND obj_description(c.oid, 'pg_class') LIKE 'estudio:collection:%'
        AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'source_hash')
    LOOP
        EXECUTE format(
            'ALTER TABLE estudio.%I ADD COLUMN source_hash text, ADD COLUMN body text NOT NULL DEFAULT '''','
            ' ADD COLUMN document tsvector GENERATED ALWAYS AS (to_tsvector(''simple''::regconfig, body)) STORED',
            objects
        );
    END LOOP;
END $$;

-- The audit trail of promotions: one row for each time that a version was to go live, whatever asked for it.
CREATE TABLE IF NOT EXISTS estudio.promotions (
    promotion_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin       text NOT NULL,
    way          text NOT NULL
        CHECK (way IN ('initialize', 'gate', 'approval', 'alias', 'manual', 'rollback')),
    actor        text NOT NULL,
    alias        text,                       -- the registry alias that was moved, for way = 'alias'
    alias_before bigint,                     -- the version that it named before
    from_version text,                       -- what served when it was asked for
    to_version   text NOT NULL,
    run_id       text,                       -- the run that carries it out, once there is one
    release_id   bigint REFERENCES estudio.deployments,
    outcome      text NOT NULL DEFAULT 'open'
        CHECK (outcome IN ('open', 'live', 'failed', 'superseded', 'refused')),
    reason       text NOT NULL DEFAULT '',
    numbers      jsonb NOT NULL DEFAULT '{}',
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at     timestamptz,
    UNIQUE (plugin, run_id)
);
CREATE INDEX IF NOT EXISTS promotions_open ON estudio.promotions (plugin) WHERE outcome = 'open';

-- Vectors that were moved between two trainings. They belong to the collection of a release and end with it.
CREATE TABLE IF NOT EXISTS estudio.improvements (
    improvement_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin     text NOT NULL,
    release_id bigint NOT NULL REFERENCES estudio.deployments,
    run_id     text NOT NULL,
    state      text NOT NULL CHECK (state IN ('applied', 'refused', 'off', 'reverted')),
    until      timestamptz NOT NULL,      -- the next run takes the sessions from here on
    objects    bigint NOT NULL,
    numbers    jsonb NOT NULL DEFAULT '{}',
    reason     text NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (plugin, run_id)
);

-- The vectors that the model gave for objects whose stored ones were moved: the way back.
CREATE TABLE IF NOT EXISTS estudio.improved_objects (
    release_id   bigint NOT NULL REFERENCES estudio.deployments,
    stored_id    text NOT NULL,            -- object_id in the collection
    user_id      text,                     -- of a personal row, which is deleted on the way back
    content_hash text NOT NULL,            -- what the vectors were computed from
    parts        int NOT NULL,
    base         real[] NOT NULL,          -- parts x dimensions, one after another
    PRIMARY KEY (release_id, stored_id)
);

-- What each run of `<plugin>__watch` saw: how the live release does, and how far users have moved from training.
CREATE TABLE IF NOT EXISTS estudio.watches (
    watch_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin        text NOT NULL,
    run_id        text NOT NULL,
    release_id    bigint NOT NULL REFERENCES estudio.deployments,
    since         timestamptz NOT NULL,    -- the fresh sessions
    until         timestamptz NOT NULL,
    trained_until timestamptz,             -- the training that drift is measured against; NULL before the first
    sessions      bigint NOT NULL,
    numbers       jsonb NOT NULL DEFAULT '{}',
    drift         text[] NOT NULL DEFAULT '{}',  -- which measures went beyond their thresholds
    reaction      text NOT NULL CHECK (reaction IN ('none', 'notify', 'train')),
    summary       text NOT NULL,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (plugin, run_id)
);
-- The same drift starts one training, however often it is seen.
CREATE UNIQUE INDEX IF NOT EXISTS watches_one_training
    ON estudio.watches (plugin, trained_until) WHERE reaction = 'train';

-- Progress of running tasks, for whoever watches; one row per task of a run.
CREATE TABLE IF NOT EXISTS estudio.progress (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    task_id text NOT NULL,
    map_index int NOT NULL,
    step text NOT NULL,
    done bigint NOT NULL,
    total bigint,
    unit text NOT NULL,
    message text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dag_id, run_id, task_id, map_index)
);

-- Evaluated candidates: up to which session they were trained, and where their reports are.
CREATE TABLE IF NOT EXISTS estudio.trainings (
    plugin     text NOT NULL,
    run_id     text NOT NULL,
    until      timestamptz NOT NULL,
    version    text,                       -- NULL for a dry run
    promoted   boolean NOT NULL,
    reason     text NOT NULL,
    report_uri text NOT NULL,              -- folder with report.html and report.json
    numbers    jsonb NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (plugin, run_id)
);
