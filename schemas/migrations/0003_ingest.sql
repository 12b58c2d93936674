-- What a writer's transaction keeps besides rows: where each partition stands, counts, hosts, ids of
-- foreign threat events, and the correlator's queue.

CREATE TABLE IF NOT EXISTS inosec.kafka_topics (
    key integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL,
    topic text NOT NULL,
    topic_id uuid,
    first_seen timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (cluster, topic, topic_id)
);
COMMENT ON TABLE inosec.kafka_topics IS 'Rows name their topic by key; a re-created topic has a new id and a new key.';

CREATE TABLE IF NOT EXISTS inosec.ingest_offsets (
    cluster text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    topic_id uuid,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE inosec.ingest_offsets IS 'The first offset of each partition that is not stored yet: the proof of exactly once.';

CREATE TABLE IF NOT EXISTS inosec.ingest_gaps (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE inosec.ingest_gaps IS 'Offsets [from, to) that Kafka''s retention deleted before they were read.';

-- Moves each partition from froms[i] to tos[i], in the order given (partition order, so that two
-- writers never wait for each other in a circle). Returns the partitions that did not stand at
-- froms[i]: another owner moved them. The caller must roll back if there are any.
CREATE OR REPLACE FUNCTION inosec.advance_offsets(
    of_cluster text, of_topic text, of_topic_id uuid, partitions integer[], froms bigint[], tos bigint[]
)
RETURNS TABLE (lost_partition integer, stored_offset bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR i IN 1 .. cardinality(partitions) LOOP
        UPDATE inosec.ingest_offsets
        SET next_offset = tos[i], updated_at = now()
        WHERE cluster = of_cluster AND topic = of_topic AND partition = partitions[i]
            AND next_offset = froms[i]
            AND (topic_id = of_topic_id OR topic_id IS NULL OR of_topic_id IS NULL);
        IF NOT FOUND THEN
            lost_partition := partitions[i];
            stored_offset := (
                SELECT next_offset FROM inosec.ingest_offsets
                WHERE cluster = of_cluster AND topic = of_topic AND partition = partitions[i]
            );
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

-- seq = batch number × 2^20 + position.
CREATE SEQUENCE IF NOT EXISTS inosec.batch_numbers AS bigint MAXVALUE 8796093022207;

CREATE TABLE IF NOT EXISTS inosec.event_counts (
    bucket timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    stream text NOT NULL,
    class_uid integer NOT NULL,
    severity_id smallint NOT NULL,
    shard integer NOT NULL,
    events bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (bucket, tenant_id, stream, class_uid, severity_id, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE inosec.event_counts IS 'Stored rows per hour of ts; shard is the smallest Kafka partition of the batch, so replicas don''t meet in one row.';

CREATE TABLE IF NOT EXISTS inosec.host_devices (
    tenant_id uuid NOT NULL,
    host_name text NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    events bigint NOT NULL,
    criticality smallint,
    PRIMARY KEY (tenant_id, host_name)
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS inosec.threat_event_ids (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE inosec.threat_event_ids IS 'The ids of foreign threat events stored so far; repeats are dropped.';

CREATE TABLE IF NOT EXISTS inosec.correlation_queue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queued_at timestamptz NOT NULL DEFAULT now(),
    batch bigint NOT NULL,
    events integer NOT NULL,
    first_ts timestamptz NOT NULL,
    last_ts timestamptz NOT NULL,
    tenants uuid[] NOT NULL,
    ids uuid[] NOT NULL
);
COMMENT ON TABLE inosec.correlation_queue IS 'One row per transaction that stored threat events: tenants[i], ids[i] name them; their ts lies within [first_ts, last_ts].';

CREATE TABLE IF NOT EXISTS inosec.maintenance (
    step text PRIMARY KEY,
    done_until timestamptz NOT NULL
);
COMMENT ON TABLE inosec.maintenance IS 'How far each maintenance step has come.';

SELECT inosec.expose('event_counts', 'tenant_id'), inosec.expose('host_devices', 'tenant_id');
ALTER TABLE inosec.threat_event_ids ENABLE ROW LEVEL SECURITY;
ALTER TABLE inosec.correlation_queue ENABLE ROW LEVEL SECURITY;

GRANT SELECT, INSERT ON inosec.kafka_topics TO inosec_loader, inosec_admin;
GRANT SELECT, INSERT, UPDATE ON inosec.ingest_offsets TO inosec_loader, inosec_admin;
GRANT SELECT, INSERT ON inosec.ingest_gaps TO inosec_loader;
GRANT EXECUTE ON FUNCTION inosec.advance_offsets(text, text, uuid, integer[], bigint[], bigint[]) TO inosec_loader;
GRANT USAGE ON SEQUENCE inosec.batch_numbers TO inosec_loader;
GRANT SELECT, INSERT, UPDATE ON inosec.event_counts, inosec.host_devices, inosec.maintenance TO inosec_loader;
GRANT SELECT, INSERT ON inosec.threat_event_ids TO inosec_loader;
GRANT INSERT ON inosec.correlation_queue TO inosec_loader;
GRANT SELECT, DELETE ON inosec.correlation_queue TO inosec_correlator;
GRANT SELECT ON inosec.host_devices TO inosec_correlator;
