-- What could not be stored, with its bytes, reason and place, to be redriven once the cause is gone.

CREATE SEQUENCE IF NOT EXISTS inosec.dead_letter_ids AS bigint;

CREATE TABLE IF NOT EXISTS inosec.dead_letters (
    id bigint NOT NULL DEFAULT nextval('inosec.dead_letter_ids'),
    received_at timestamptz NOT NULL DEFAULT now(),
    tenant_id uuid,
    reason text NOT NULL,
    detail text NOT NULL,
    topic text NOT NULL,
    topic_key integer NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    last_offset bigint NOT NULL,
    arrived_at timestamptz NOT NULL,
    headers jsonb,
    payload bytea,
    redriven_at timestamptz
) /*plain: PARTITION BY RANGE (received_at)*/;
COMMENT ON COLUMN inosec.dead_letters.received_at IS 'When the letter was stored; partitions the table.';
COMMENT ON COLUMN inosec.dead_letters.arrived_at IS 'When Kafka took the message.';
COMMENT ON COLUMN inosec.dead_letters.last_offset IS 'Equal to "offset", except beyond the tenant''s quota: then one letter without payload stands for rejected messages from "offset" to last_offset.';
COMMENT ON COLUMN inosec.dead_letters.headers IS 'Name to value: text, {"hex": …} where it is not UTF-8, null, or a list of these where the name repeats.';
COMMENT ON COLUMN inosec.dead_letters.payload IS 'The value byte for byte; null for a tombstone and beyond the quota.';

SELECT inosec.partition_table('dead_letters', 'received_at', interval '1 day');
CREATE INDEX IF NOT EXISTS dead_letters_id ON inosec.dead_letters (id);
CREATE INDEX IF NOT EXISTS dead_letters_tenant ON inosec.dead_letters (tenant_id, received_at DESC);
SELECT inosec.expose('dead_letters', 'tenant_id');

CREATE TABLE IF NOT EXISTS inosec.dead_letter_usage (
    day date NOT NULL,
    tenant_id uuid NOT NULL,
    letters bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (day, tenant_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE inosec.dead_letter_usage IS 'Dead letters per UTC day and tenant, against the byte quota; the nil tenant stands for messages without one.';

-- Drops the partitions of dead letters older than `keep`; returns how many.
CREATE OR REPLACE FUNCTION inosec.expire_dead_letters(keep interval)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    cutoff constant timestamptz := now() - keep;
    old record;
    dropped bigint := 0;
BEGIN
    IF keep < interval '1 day' THEN
        RAISE EXCEPTION 'dead letters are kept for at least a day' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM inosec.dead_letter_usage WHERE day < (cutoff AT TIME ZONE 'UTC')::date;
    IF (SELECT kind FROM inosec.hot_store) = 'timescale' THEN
        RETURN (SELECT count(*) FROM drop_chunks('inosec.dead_letters'::regclass, older_than => cutoff));
    END IF;
    FOR old IN
        SELECT c.relname
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'inosec.dead_letters'::regclass
            AND to_timestamp(right(c.relname, 8), 'YYYYMMDD') + interval '1 day' <= cutoff
    LOOP
        EXECUTE format('DROP TABLE inosec.%I', old.relname);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
REVOKE ALL ON FUNCTION inosec.expire_dead_letters(interval) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION inosec.expire_dead_letters(interval) TO inosec_loader;
GRANT SELECT, INSERT, UPDATE (redriven_at) ON inosec.dead_letters TO inosec_loader;
GRANT USAGE ON SEQUENCE inosec.dead_letter_ids TO inosec_loader;
GRANT SELECT, INSERT, UPDATE ON inosec.dead_letter_usage TO inosec_loader;
