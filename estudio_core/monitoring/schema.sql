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
