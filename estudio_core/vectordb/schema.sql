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
