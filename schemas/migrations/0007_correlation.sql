-- Correlation: how far each partition was read, the correlator's epoch, alerts, their members, their
-- changes, and what became of suppressions.

ALTER TABLE inosec.ingest_offsets ADD COLUMN IF NOT EXISTS read_until timestamptz;
COMMENT ON COLUMN inosec.ingest_offsets.read_until IS 'All that Kafka took into the partition before this is stored.';

-- As before, and notes how far the partition was read: the record time of the last message, if any.
DROP FUNCTION IF EXISTS inosec.advance_offsets(text, text, uuid, integer[], bigint[], bigint[]);
CREATE OR REPLACE FUNCTION inosec.advance_offsets(
    of_cluster text, of_topic text, of_topic_id uuid,
    partitions integer[], froms bigint[], tos bigint[], arrivals timestamptz[]
)
RETURNS TABLE (lost_partition integer, stored_offset bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR i IN 1 .. cardinality(partitions) LOOP
        UPDATE inosec.ingest_offsets
        SET next_offset = tos[i], read_until = greatest(read_until, arrivals[i]), updated_at = now()
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
GRANT EXECUTE ON FUNCTION inosec.advance_offsets(text, text, uuid, integer[], bigint[], bigint[], timestamptz[])
    TO inosec_loader;
GRANT SELECT ON inosec.ingest_offsets TO inosec_correlator;

ALTER TABLE inosec.tenants ADD COLUMN IF NOT EXISTS alert_severity_id smallint CHECK (alert_severity_id BETWEEN 0 AND 6);
COMMENT ON COLUMN inosec.tenants.alert_severity_id IS 'Threat events of this OCSF severity or more have alerts of their own; null: as configured.';
-- Whoever asks for the revision of what tenants say learns of it.
CREATE OR REPLACE TRIGGER tenant_alerts_changed
    AFTER INSERT OR UPDATE OF alert_severity_id ON inosec.tenants
    FOR EACH STATEMENT EXECUTE FUNCTION inosec.tenant_rules_changed();
COMMENT ON COLUMN inosec.host_devices.criticality IS 'How much the host matters, 1 to 5; null counts as 3. Part of its alerts'' risk score.';
GRANT UPDATE (criticality) ON inosec.host_devices TO inosec_admin;
GRANT SELECT ON inosec.tenant_rules_revision TO inosec_correlator;

-- One row. Whoever leads has raised the epoch, and holds the row in each transaction.
CREATE TABLE IF NOT EXISTS inosec.correlator (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    epoch bigint NOT NULL,
    clock timestamptz,
    led_by text,
    led_since timestamptz
);
INSERT INTO inosec.correlator (epoch) VALUES (0) ON CONFLICT DO NOTHING;
COMMENT ON COLUMN inosec.correlator.clock IS 'All that arrived before this is correlated.';
GRANT SELECT, UPDATE ON inosec.correlator TO inosec_correlator;

CREATE TABLE IF NOT EXISTS inosec.alerts (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    title text NOT NULL,
    rule_id text NOT NULL,
    rule_revision text,
    rule_author text,
    correlation boolean NOT NULL,
    group_id uuid NOT NULL,
    grouped_by jsonb NOT NULL,
    severity_id smallint NOT NULL,
    risk_score smallint NOT NULL CHECK (risk_score BETWEEN 0 AND 100),
    status_id smallint NOT NULL DEFAULT 1 CHECK (status_id BETWEEN 1 AND 5),
    verdict text,
    assignee text,
    techniques text[] NOT NULL,
    entities jsonb NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    event_count bigint NOT NULL,
    tags text[] NOT NULL DEFAULT '{}',
    episode text NOT NULL DEFAULT 'live' CHECK (episode IN ('live', 'settled', 'merged', 'withdrawn')),
    merged_into uuid,
    follows uuid,
    suppression_id uuid,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS alerts_tenant_id_last_seen ON inosec.alerts (tenant_id, last_seen DESC);
CREATE INDEX IF NOT EXISTS alerts_group_id ON inosec.alerts (group_id, created_at DESC);
CREATE INDEX IF NOT EXISTS alerts_live ON inosec.alerts (id) WHERE episode = 'live';
COMMENT ON COLUMN inosec.alerts.group_id IS 'Stands for tenant, rule and values of grouped_by.';
COMMENT ON COLUMN inosec.alerts.episode IS 'live: more may come; settled: beyond the horizon; merged: merged_into goes on; withdrawn: what it was built on is no more.';
COMMENT ON COLUMN inosec.alerts.follows IS 'The alert of the same group before this one.';

CREATE TABLE IF NOT EXISTS inosec.alert_events (
    alert_id uuid NOT NULL,
    threat_event_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    ts timestamptz NOT NULL,
    PRIMARY KEY (alert_id, threat_event_id)
);
COMMENT ON TABLE inosec.alert_events IS 'The threat events of each alert; ts is theirs.';

-- The sequence of a tenant's changes has no gap that is filled later: its row is locked to the end of
-- the transaction that counts it up.
CREATE TABLE IF NOT EXISTS inosec.alert_sequences (
    tenant_id uuid PRIMARY KEY,
    last_seq bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS inosec.alert_changes (
    tenant_id uuid NOT NULL,
    seq bigint NOT NULL,
    alert_id uuid NOT NULL,
    version bigint NOT NULL,
    kind text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    alert jsonb NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);
COMMENT ON TABLE inosec.alert_changes IS 'Every change of every alert, in order per tenant; alert is the row as it was after it.';
CREATE INDEX IF NOT EXISTS alert_changes_changed_at ON inosec.alert_changes USING brin (changed_at);
CREATE TABLE IF NOT EXISTS inosec.alert_relay (
    tenant_id uuid PRIMARY KEY,
    sent_seq bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE inosec.alert_relay IS 'How far each tenant''s changes were sent to the alerts topic.';

CREATE TABLE IF NOT EXISTS inosec.alert_suppressions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES inosec.tenants,
    rule_id text,
    fields jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(fields) = 'object'),
    until timestamptz,
    reason text NOT NULL CHECK (reason <> ''),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE inosec.alert_suppressions IS 'Alerts of the tenant, of the rule if one is named, whose values are as in fields are marked suppressed until then.';

-- Records a change of each alert, in the order given, which the caller sorts by tenant.
CREATE OR REPLACE FUNCTION inosec.record_alert_changes(ids uuid[], kinds text[])
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH changed AS (
        SELECT a.tenant_id, a.id, a.version, c.kind, to_jsonb(a) AS alert,
            row_number() OVER (PARTITION BY a.tenant_id ORDER BY c.place) AS place,
            count(*) OVER (PARTITION BY a.tenant_id) AS of_tenant
        FROM unnest(ids, kinds) WITH ORDINALITY AS c (id, kind, place) JOIN inosec.alerts AS a USING (id)
    ), counted AS (
        INSERT INTO inosec.alert_sequences AS known (tenant_id, last_seq)
        SELECT tenant_id, count(*) FROM changed GROUP BY tenant_id ORDER BY tenant_id
        ON CONFLICT (tenant_id) DO UPDATE SET last_seq = known.last_seq + excluded.last_seq
        RETURNING tenant_id, last_seq
    )
    INSERT INTO inosec.alert_changes (tenant_id, seq, alert_id, version, kind, alert)
    SELECT c.tenant_id, n.last_seq - c.of_tenant + c.place, c.id, c.version, c.kind, c.alert
    FROM changed AS c JOIN counted AS n USING (tenant_id)
$$;

REVOKE EXECUTE ON FUNCTION inosec.record_alert_changes(uuid[], text[]) FROM PUBLIC;

-- Drops old changes, a portion at a time; those a relay still has to send stay.
CREATE OR REPLACE FUNCTION inosec.expire_alert_changes(keep interval)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH gone AS (
        DELETE FROM inosec.alert_changes WHERE (tenant_id, seq) IN (
            SELECT c.tenant_id, c.seq FROM inosec.alert_changes AS c
            LEFT JOIN inosec.alert_relay AS r USING (tenant_id)
            WHERE c.changed_at < now() - greatest(keep, interval '1 day') AND c.seq <= coalesce(r.sent_seq, c.seq)
            LIMIT 20000
        )
        RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
REVOKE EXECUTE ON FUNCTION inosec.expire_alert_changes(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION inosec.expire_alert_changes(interval) TO inosec_loader;

CREATE TABLE IF NOT EXISTS inosec.correlation_evictions (
    hour timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    groups bigint NOT NULL,
    entries bigint NOT NULL,
    notice_id uuid NOT NULL,
    PRIMARY KEY (hour, tenant_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE inosec.correlation_evictions IS 'What correlation forgot of a tenant that was beyond its limits; the threat event notice_id tells of each row.';

-- Counts what was forgotten; the first time in an hour, a threat event tells the tenant.
CREATE OR REPLACE FUNCTION inosec.count_evicted(of_tenant uuid, gone_groups bigint, gone_entries bigint)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    of_hour timestamptz := date_trunc('hour', now());
    notice uuid := gen_random_uuid();
    first boolean;
BEGIN
    INSERT INTO inosec.correlation_evictions AS known (hour, tenant_id, groups, entries, notice_id)
    VALUES (of_hour, of_tenant, gone_groups, gone_entries, notice)
    ON CONFLICT (hour, tenant_id) DO UPDATE
        SET groups = known.groups + excluded.groups, entries = known.entries + excluded.entries
    RETURNING xmax = 0 INTO first;
    IF NOT first THEN
        RETURN;
    END IF;
    PERFORM inosec.ensure_partition('threat_events', now());
    INSERT INTO inosec.threat_events (id, tenant_id, signature, severity_id, detected_at, ts, ingested_at,
        source, event_id, payload, seq)
    VALUES (notice, of_tenant, 'Correlation forgets: too many groups or events at once', 1, now(), now(), now(),
        'inosec', notice, '{"notice": "evicted", "counted_in": "correlation_evictions"}', -1);
    INSERT INTO inosec.event_counts AS known
        (bucket, tenant_id, stream, class_uid, severity_id, shard, events, bytes)
    VALUES (of_hour, of_tenant, 'threat_events', 0, 1, 0, 1, 0)
    ON CONFLICT ON CONSTRAINT event_counts_pkey DO UPDATE SET events = known.events + 1;
END
$$;
REVOKE EXECUTE ON FUNCTION inosec.count_evicted(uuid, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION inosec.count_evicted(uuid, bigint, bigint) TO inosec_correlator;

SELECT inosec.expose('correlation_evictions', 'tenant_id'), inosec.expose('alerts', 'tenant_id'), inosec.expose('alert_events', 'tenant_id'),
    inosec.expose('alert_changes', 'tenant_id'), inosec.expose('alert_suppressions', 'tenant_id');
ALTER TABLE inosec.alert_sequences ENABLE ROW LEVEL SECURITY;
ALTER TABLE inosec.alert_relay ENABLE ROW LEVEL SECURITY;

GRANT SELECT, INSERT, UPDATE ON inosec.alerts, inosec.alert_sequences, inosec.alert_relay TO inosec_correlator;
GRANT SELECT, INSERT, DELETE ON inosec.alert_events TO inosec_correlator;
GRANT SELECT, INSERT ON inosec.alert_changes TO inosec_correlator;
GRANT SELECT ON inosec.alert_suppressions TO inosec_correlator, inosec_admin;
GRANT INSERT, UPDATE, DELETE ON inosec.alert_suppressions TO inosec_admin;
GRANT EXECUTE ON FUNCTION inosec.record_alert_changes(uuid[], text[]) TO inosec_correlator;
