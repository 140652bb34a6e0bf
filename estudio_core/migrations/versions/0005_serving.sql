-- How the texts of items are made and divided into parts; NULL: only the plugin's own code knows.
ALTER TABLE estudio.deployments ADD COLUMN IF NOT EXISTS item_texts jsonb;

-- The cluster whose transaction ids stand in change_log.xid and deployments.applied_xid: they mean nothing in another.
CREATE TABLE IF NOT EXISTS estudio.cluster (
    only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    identifier text NOT NULL
);
INSERT INTO estudio.cluster (identifier) SELECT system_identifier::text FROM pg_control_system()
    ON CONFLICT DO NOTHING;

-- What a field of a payload is sorted by and compared by in an index: numbers and truth values as they are, a text by
-- its first 256 characters, a list or object by a mark behind all of them, nothing where there is none. `way` is the path
-- as jsonpath, which also sees fields of objects in lists. Immutable, though to_jsonb is not declared so: of a text it is.
CREATE OR REPLACE FUNCTION estudio.field_key(payload jsonb, path text[], way jsonpath) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    found jsonb := payload #> path;
BEGIN
    RETURN CASE coalesce(jsonb_typeof(found), 'nothing')
        WHEN 'string' THEN to_jsonb(left(found #>> '{}', 256))
        WHEN 'number' THEN found
        WHEN 'boolean' THEN found
        WHEN 'null' THEN NULL
        WHEN 'nothing' THEN CASE WHEN cardinality(path) > 1 AND jsonb_path_exists(payload, way) THEN '[0]'::jsonb END
        ELSE '[0]'::jsonb
    END;
END
$$;

-- The moment that a text of a payload names, with microseconds; infinity where there is something else, nothing where
-- there is nothing. The pattern is that of vectordb/times.py; a zone is always given to the cast, so that no setting of a
-- session decides.
CREATE OR REPLACE FUNCTION estudio.field_time(payload jsonb, path text[], way jsonpath) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    found jsonb := payload #> path;
    m text[];
BEGIN
    IF coalesce(jsonb_typeof(found), 'null') = 'null' THEN
        RETURN CASE WHEN cardinality(path) > 1 AND jsonb_path_exists(payload, way) THEN 'infinity'::timestamptz END;
    END IF;
    IF jsonb_typeof(found) <> 'string' THEN
        RETURN 'infinity';
    END IF;
    m := regexp_match(left(found #>> '{}', 100),
        '^(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)? ?(?:[Zz]|([+-]\d\d)(?::?(\d\d))?)?)?$');
    IF m IS NULL OR m[2] >= '24:00' OR m[3] >= '60' THEN
        RETURN 'infinity';
    END IF;
    RETURN (m[1] || 'T' || coalesce(m[2], '00:00') || ':' || coalesce(m[3], '00') || '.'
        || rpad(coalesce(m[4], ''), 6, '0') || coalesce(m[5], '+00') || ':' || coalesce(m[6], '00'))::timestamptz;
EXCEPTION WHEN data_exception THEN
    RETURN 'infinity';
END
$$;
