-- The key of a search is its application and its id: two applications may both count theirs 1, 2, 3.
ALTER TABLE estudio.ubi_queries
    ADD COLUMN session_id text,
    ADD COLUMN user_id text,
    ADD COLUMN pages jsonb,                              -- where several were logged: each with its time, hits and scores
    ADD COLUMN inferred boolean NOT NULL DEFAULT false,  -- known from its events alone, until its own row comes
    ADD COLUMN contradicted_at timestamptz,              -- from here on its id is that of a search for something else
    DROP CONSTRAINT ubi_queries_pkey,
    ADD PRIMARY KEY (application, query_id);
CREATE INDEX ubi_queries_inferred ON estudio.ubi_queries (application, query_id) WHERE inferred;

ALTER TABLE estudio.ubi_events
    ADD COLUMN session_id text,
    ADD COLUMN user_id text,
    DROP CONSTRAINT ubi_events_pkey,
    ADD PRIMARY KEY (application, event_id);

-- A search's own row takes the place of what its events said of it, whoever inserts it.
CREATE FUNCTION estudio.ubi_queries_take_place() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM estudio.ubi_queries q
    WHERE q.inferred AND q.application = NEW.application AND q.query_id = NEW.query_id;
    RETURN NEW;
END $$;
CREATE TRIGGER ubi_queries_take_place BEFORE INSERT ON estudio.ubi_queries
    FOR EACH ROW WHEN (NOT NEW.inferred) EXECUTE FUNCTION estudio.ubi_queries_take_place();

-- What an application's log means by its numbers and words.
CREATE TABLE estudio.clickstream_applications (
    application    text PRIMARY KEY,
    first_position smallint CHECK (first_position IN (0, 1)),  -- ordinal of the topmost result
    declared       boolean NOT NULL DEFAULT false,             -- by a person; else found in the log
    clicks         jsonb NOT NULL DEFAULT '{}',                -- further actions that are clicks, with their importance
    impressions    text[] NOT NULL DEFAULT '{}'                -- further actions that say a result was shown
);

-- How far an import has come, so that one that was stopped goes on.
CREATE TABLE estudio.clickstream_imports (
    source      text PRIMARY KEY,
    fingerprint text NOT NULL,
    place       jsonb NOT NULL,
    counts      jsonb NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Clients that were forgotten, as digests of their ids, so that no old log brings them back.
CREATE TABLE estudio.forgotten_clients (
    digest text PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The version before logs a search by ON CONFLICT (query_id), for which there is no unique key any more.
UPDATE estudio.alembic_version SET serves_from = '0004';
