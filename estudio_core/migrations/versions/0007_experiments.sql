-- A release that answers searches beside the live one, in an experiment.
ALTER TABLE estudio.deployments DROP CONSTRAINT deployments_state_check;
ALTER TABLE estudio.deployments ADD CONSTRAINT deployments_state_check CHECK
    (state IN ('building', 'built', 'verified', 'challenger', 'live', 'previous', 'retired', 'failed'));
ALTER TABLE estudio.deployments ADD COLUMN challenger_at timestamptz;

ALTER TABLE estudio.promotions DROP CONSTRAINT promotions_way_check;
ALTER TABLE estudio.promotions ADD CONSTRAINT promotions_way_check CHECK
    (way IN ('initialize', 'gate', 'approval', 'alias', 'manual', 'rollback', 'experiment'));

-- Two releases of a plugin, compared by what users do with their results.
CREATE TABLE estudio.experiments (
    experiment_id text PRIMARY KEY,
    plugin        text NOT NULL,
    form          text NOT NULL CHECK (form IN ('interleaving', 'ab')),
    champion      bigint NOT NULL REFERENCES estudio.deployments,
    challenger    bigint NOT NULL REFERENCES estudio.deployments,
    settings      jsonb NOT NULL,          -- comparing.settings.ExperimentSettings
    -- running: searches are answered by both; decided: they still are, until the verdict is carried out; ended
    state         text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'decided', 'ended')),
    verdict       text CHECK (verdict IN ('better', 'worse', 'harm', 'no difference', 'stopped')),
    reason        text NOT NULL DEFAULT '',
    standing      jsonb,                   -- comparing.standing.Standing, as of the last look
    started_by    text NOT NULL,
    ended_by      text,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    looked_at     timestamptz,
    decided_at    timestamptz,
    ended_at      timestamptz,
    CHECK (champion <> challenger),
    CHECK ((state = 'running') = (verdict IS NULL))
);
CREATE UNIQUE INDEX experiments_one_at_a_time ON estudio.experiments (plugin) WHERE state <> 'ended';
CREATE INDEX experiments_plugin ON estudio.experiments (plugin, started_at DESC);
