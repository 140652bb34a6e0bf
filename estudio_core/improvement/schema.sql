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
