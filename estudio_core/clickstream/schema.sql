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
