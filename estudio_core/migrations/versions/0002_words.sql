-- The words of a text: what the text search configuration reads in it and, beside its parts, the exact form of each
-- part number: AB-17-x as ab17x. Words without a position occur once.
CREATE OR REPLACE FUNCTION estudio.words(config regconfig, given text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
    SELECT to_tsvector(config, given) || coalesce(
        (SELECT array_to_tsvector(array_agg(DISTINCT lower(regexp_replace(found[1], '[-./_]', '', 'g'))))
         FROM regexp_matches(given, '[[:alnum:]]+(?:[-./_][[:alnum:]]+)+', 'g') AS found
         WHERE found[1] ~ '[0-9]' AND found[1] ~ '[[:alpha:]-]' AND length(found[1]) <= 64),
        ''::tsvector)
$$;

-- The words of an object; those of its title are marked A, and stand here once more than in the text.
CREATE OR REPLACE FUNCTION estudio.object_words(config regconfig, title text, body text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT setweight(estudio.words(config, coalesce(title, '')), 'A') || estudio.words(config, body)
$$;

-- The place of a word among the dimensions of a sparse vector. Two of a million words share one with a chance of
-- 1 : 2,000 each. PostgreSQL keeps this function as it is, because partitions by hash rest on it.
CREATE OR REPLACE FUNCTION estudio.word_number(word text) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
    SELECT ((hashtextextended(word, 0) & 2147483647) % 1000000000 + 1)::int
$$;

-- How often each word of an object occurs; one of the title counts title_weight times.
CREATE OR REPLACE FUNCTION estudio.word_counts(document tsvector, title_weight float8)
RETURNS TABLE (word text, occurrences float8) LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
    SELECT lexeme, coalesce(cardinality(positions), 1)
        + (title_weight - 1) * coalesce(cardinality(array_positions(weights, 'A')), 0)
    FROM unnest(document)
$$;

-- What each of them weighs by BM25, before its idf.
CREATE OR REPLACE FUNCTION estudio.word_weights(
    document tsvector, title_weight float8, k1 float8, b float8, average_length float8
) RETURNS TABLE (word text, weight float8) LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
    SELECT word, occurrences * (k1 + 1) / (occurrences + k1 * (1 - b + b * length / average_length))
    FROM (
        SELECT word, occurrences, sum(occurrences) OVER () AS length FROM estudio.word_counts(document, title_weight)
    ) AS counted
$$;

-- The same as a sparse vector: its inner product with the idf of a query's words is the score.
CREATE OR REPLACE FUNCTION estudio.word_vector(
    document tsvector, title_weight float8, k1 float8, b float8, average_length float8
) RETURNS sparsevec LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
    SELECT coalesce('{' || string_agg(number || ':' || weight, ',') || '}/1000000000', '{}/1000000000')::sparsevec
    FROM (
        SELECT estudio.word_number(word) AS number, sum(weight)::float4 AS weight
        FROM estudio.word_weights(document, title_weight, k1, b, average_length)
        -- More have no place in a sparse vector; those of the longest texts that weigh least count for nothing.
        GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 16000
    ) AS weighed
$$;

-- Keep a collection's words as its objects are. Arguments: table of words, table of terms, text search configuration,
-- field of the payload that holds the title or nothing, title_weight, k1, b, average length.
CREATE OR REPLACE FUNCTION estudio.keep_words() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed text := '';
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- A payload alone changes often, and words seldom with it.
        changed := format(
            ' AND EXISTS (SELECT FROM before o JOIN after n USING (object_id) WHERE object_id = x.object_id AND'
            ' (o.body, o.user_id IS NULL, o.payload ->> %1$L) IS DISTINCT FROM'
            ' (n.body, n.user_id IS NULL, n.payload ->> %1$L))', TG_ARGV[3]);
    END IF;
    IF TG_OP <> 'INSERT' THEN
        EXECUTE format(
            'WITH gone AS (DELETE FROM %1$s w USING before x WHERE w.object_id = x.object_id %3$s'
            ' RETURNING w.document, w.personal)'
            ' INSERT INTO %2$s (word, documents, most)'
            ' SELECT word, -count(*), 0 FROM gone, unnest(tsvector_to_array(document)) AS word'
            ' WHERE NOT personal GROUP BY word'
            ' UNION ALL SELECT '''', -count(*), 0 FROM gone WHERE NOT personal HAVING count(*) > 0',
            TG_ARGV[0], TG_ARGV[1], changed);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE format(
            'WITH came AS MATERIALIZED ('
            '   SELECT x.object_id, x.user_id IS NOT NULL AS personal,'
            '     estudio.object_words(%3$L, x.payload ->> %4$L, x.body) AS document'
            '   FROM after x WHERE x.body <> '''' %9$s),'
            ' kept AS (INSERT INTO %1$s (object_id, personal, document, weights)'
            '   SELECT object_id, personal, strip(document),'
            '     estudio.word_vector(document, %5$L, %6$L, %7$L, %8$L) FROM came)'
            ' INSERT INTO %2$s (word, documents, most)'
            ' SELECT w.word, count(*), max(w.weight)'
            ' FROM came, estudio.word_weights(document, %5$L, %6$L, %7$L, %8$L) AS w WHERE NOT personal GROUP BY w.word'
            ' UNION ALL SELECT '''', count(*), 0 FROM came WHERE NOT personal HAVING count(*) > 0',
            TG_ARGV[0], TG_ARGV[1], TG_ARGV[2], TG_ARGV[3], TG_ARGV[4], TG_ARGV[5], TG_ARGV[6], TG_ARGV[7], changed);
    END IF;
    RETURN NULL;
END
$$;

-- What a release ranks by beside its vectors.
ALTER TABLE estudio.deployments ADD COLUMN IF NOT EXISTS ranking jsonb NOT NULL DEFAULT '{}';
UPDATE estudio.deployments SET index_info = index_info || '{"lexical": null}' WHERE NOT index_info ? 'lexical';
