-- Who may ask the HTTP service for what. Of a key's secret there is a digest, and the public half of its signatures.
CREATE TABLE estudio.service_keys (
    key_id     text PRIMARY KEY,
    name       text NOT NULL,
    scopes     text[] NOT NULL CHECK (scopes <@ ARRAY['search', 'events', 'items', 'admin'] AND scopes <> '{}'),
    plugins    text[] NOT NULL CHECK (plugins <> '{}'),
    origins    text[] NOT NULL DEFAULT '{}',
    rate       int CHECK (rate > 0),            -- requests a minute
    filter     jsonb,                           -- all that it searches and counts meets this
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    digest     bytea NOT NULL,                  -- SHA-256
    verifier   bytea NOT NULL                   -- Ed25519
);

-- What people said of results on the search page.
CREATE TABLE estudio.human_judgments (
    plugin    text NOT NULL,
    query     text NOT NULL,
    object_id text NOT NULL,
    judge     text NOT NULL,
    grade     real NOT NULL CHECK (grade >= 0 AND grade <= 100),
    judged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (plugin, query, object_id, judge)
);
