-- Tenants, the placement epoch every writer checks, and the trail of changes.

CREATE TABLE IF NOT EXISTS inosec.tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name <> ''),
    tier text NOT NULL DEFAULT 'standard' CHECK (tier IN ('standard', 'enterprise', 'compliance')),
    region text,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row. A writer takes it FOR SHARE, which needs UPDATE on some column: `held` is that column,
-- so that the loader can hold the epoch but not change it.
CREATE TABLE IF NOT EXISTS inosec.placement_epoch (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    epoch bigint NOT NULL,
    held boolean
);
INSERT INTO inosec.placement_epoch (epoch) VALUES (1) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS inosec.tenant_rules (
    tenant_id uuid NOT NULL REFERENCES inosec.tenants,
    rule_id text NOT NULL,
    enabled boolean NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, rule_id)
);
COMMENT ON TABLE inosec.tenant_rules IS 'Which rules a tenant switched on or off; the rules themselves are files.';

CREATE TABLE IF NOT EXISTS inosec.audit_trails (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    tenant_id uuid,
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS audit_trails_at ON inosec.audit_trails (at DESC);

GRANT SELECT ON inosec.tenants, inosec.placement_epoch, inosec.tenant_rules
    TO inosec_loader, inosec_correlator, inosec_admin;
GRANT UPDATE (held) ON inosec.placement_epoch TO inosec_loader, inosec_correlator;
GRANT INSERT, UPDATE ON inosec.tenants TO inosec_admin;
GRANT UPDATE (epoch) ON inosec.placement_epoch TO inosec_admin;
GRANT SELECT, INSERT ON inosec.audit_trails TO inosec_admin;
GRANT INSERT ON inosec.audit_trails TO inosec_loader;
