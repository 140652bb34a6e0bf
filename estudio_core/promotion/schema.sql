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
