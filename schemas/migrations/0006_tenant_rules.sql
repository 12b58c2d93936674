-- What tenants say of rules, and what becomes of a rule that matches too often.

ALTER TABLE inosec.tenant_rules ADD COLUMN IF NOT EXISTS exception text;
COMMENT ON COLUMN inosec.tenant_rules.rule_id IS 'A rule''s or a filter''s id.';
COMMENT ON COLUMN inosec.tenant_rules.exception IS 'What the rule shall not fire on: Sigma selections as YAML, and a condition unless any of them will do.';

-- One row. It grows with every change, so that asking for it tells whether to read the table.
CREATE TABLE IF NOT EXISTS inosec.tenant_rules_revision (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    revision bigint NOT NULL
);
INSERT INTO inosec.tenant_rules_revision (revision) VALUES (1) ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION inosec.tenant_rules_changed()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE inosec.tenant_rules_revision SET revision = revision + 1;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER tenant_rules_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON inosec.tenant_rules
    FOR EACH STATEMENT EXECUTE FUNCTION inosec.tenant_rules_changed();

GRANT INSERT, UPDATE, DELETE ON inosec.tenant_rules TO inosec_admin;
GRANT SELECT ON inosec.tenant_rules_revision TO inosec_loader, inosec_admin;

CREATE TABLE IF NOT EXISTS inosec.suppressed_matches (
    minute timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    rule_id text NOT NULL,
    matches bigint NOT NULL,
    notice_id uuid NOT NULL,
    PRIMARY KEY (minute, tenant_id, rule_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE inosec.suppressed_matches IS 'Matches of a rule that were counted, not stored, because there were too many in a minute of arrival; the threat event notice_id tells of each row.';
SELECT inosec.expose('suppressed_matches', 'tenant_id');
GRANT SELECT, INSERT, UPDATE ON inosec.suppressed_matches TO inosec_loader;

-- Counts suppressed matches; returns the threat events that tell of those counted for the first time.
CREATE OR REPLACE FUNCTION inosec.count_suppressed(
    minutes timestamptz[], tenants uuid[], rules text[], revisions text[], titles text[], counts bigint[],
    limits integer[], events uuid[], notices uuid[], shard integer
)
RETURNS TABLE (noticed_tenant uuid, noticed_id uuid, noticed_at timestamptz)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    first boolean;
BEGIN
    FOR i IN 1 .. cardinality(minutes) LOOP
        INSERT INTO inosec.suppressed_matches AS known (minute, tenant_id, rule_id, matches, notice_id)
        VALUES (minutes[i], tenants[i], rules[i], counts[i], notices[i])
        ON CONFLICT (minute, tenant_id, rule_id) DO UPDATE SET matches = known.matches + excluded.matches
        RETURNING xmax = 0 INTO first;
        CONTINUE WHEN NOT first;
        INSERT INTO inosec.threat_events (id, tenant_id, signature, severity_id, detected_at, ts, ingested_at,
            source, rule_id, rule_revision, event_id, payload, seq)
        VALUES (notices[i], tenants[i], left('Suppressed: ' || titles[i], 1024), 1, minutes[i], minutes[i], minutes[i],
            'inosec', rules[i], revisions[i], events[i],
            jsonb_build_object('notice', 'suppressed', 'limit_per_minute', limits[i], 'counted_in', 'suppressed_matches'),
            -1);
        INSERT INTO inosec.event_counts AS known
            (bucket, tenant_id, stream, class_uid, severity_id, shard, events, bytes)
        VALUES (date_trunc('hour', minutes[i]), tenants[i], 'threat_events', 0, 1, count_suppressed.shard, 1, 0)
        ON CONFLICT ON CONSTRAINT event_counts_pkey DO UPDATE SET events = known.events + 1;
        RETURN QUERY SELECT tenants[i], notices[i], minutes[i];
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION inosec.count_suppressed(
    timestamptz[], uuid[], text[], text[], text[], bigint[], integer[], uuid[], uuid[], integer
) TO inosec_loader;

CREATE OR REPLACE FUNCTION inosec.expire_suppressed(keep interval)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM inosec.suppressed_matches WHERE minute < now() - keep
$$;
REVOKE EXECUTE ON FUNCTION inosec.expire_suppressed(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION inosec.expire_suppressed(interval) TO inosec_loader;
