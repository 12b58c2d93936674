-- Partitioned tables on either hot store. TimescaleDB makes chunks by itself; on plain PostgreSQL
-- a table is declared PARTITION BY (the comments /*plain: … */ are opened there) and its partitions
-- are made here.

CREATE TABLE IF NOT EXISTS inosec.hot_store (
    kind text NOT NULL CHECK (kind IN ('timescale', 'postgres'))
);
COMMENT ON TABLE inosec.hot_store IS 'How this database partitions; decided by the first migration.';

INSERT INTO inosec.hot_store
SELECT current_setting('inosec.hot_store')
WHERE NOT EXISTS (SELECT FROM inosec.hot_store);

CREATE TABLE IF NOT EXISTS inosec.partitioned_tables (
    name text PRIMARY KEY,
    time_column text NOT NULL,
    width interval NOT NULL
);
COMMENT ON TABLE inosec.partitioned_tables IS 'The tables ensure_partition may make partitions of.';

-- Declares a table, just created, as partitioned by time.
CREATE OR REPLACE FUNCTION inosec.partition_table(table_name text, time_column text, width interval)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    INSERT INTO inosec.partitioned_tables VALUES (table_name, time_column, width)
    ON CONFLICT (name) DO NOTHING;
    IF (SELECT kind FROM inosec.hot_store) = 'timescale' THEN
        PERFORM create_hypertable(
            format('inosec.%I', table_name)::regclass,
            by_range(time_column::name, width),
            create_default_indexes => false,
            if_not_exists => true
        );
    END IF;
END
$$;

-- Makes the partition that holds `at` unless there is one; true if it made one. Attaching an
-- existing table locks out no writer, CREATE … PARTITION OF would.
CREATE OR REPLACE FUNCTION inosec.ensure_partition(table_name text, at timestamptz)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    declared inosec.partitioned_tables;
    lower_bound timestamptz;
    partition_name text;
BEGIN
    SELECT * INTO declared FROM inosec.partitioned_tables WHERE name = table_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'inosec.% is not a partitioned table', table_name USING ERRCODE = 'undefined_table';
    END IF;
    lower_bound := date_bin(declared.width, at, timestamptz '1970-01-01');
    IF (SELECT kind FROM inosec.hot_store) = 'timescale' THEN
        RETURN inosec.ensure_chunk(declared, lower_bound);
    END IF;
    partition_name := table_name || to_char(
        lower_bound,
        CASE WHEN declared.width < interval '1 day' THEN '"_p"YYYYMMDD"_"HH24' ELSE '"_p"YYYYMMDD' END
    );
    IF to_regclass(format('inosec.%I', partition_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('inosec.ensure_partition ' || table_name, 0));
    -- Not to_regclass: it would answer from what it saw before the lock.
    IF EXISTS (SELECT FROM pg_class WHERE relname = partition_name AND relnamespace = 'inosec'::regnamespace) THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'CREATE TABLE inosec.%I (LIKE inosec.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)',
        partition_name, table_name
    );
    EXECUTE format(
        'ALTER TABLE inosec.%I ATTACH PARTITION inosec.%I FOR VALUES FROM (%L) TO (%L)',
        table_name, partition_name, lower_bound, lower_bound + declared.width
    );
    RETURN true;
END
$$;

-- TimescaleDB's own create_chunk needs the Community licence. A row inserted and deleted again in
-- one transaction, which nobody ever sees, makes the chunk on every edition.
CREATE OR REPLACE FUNCTION inosec.ensure_chunk(declared inosec.partitioned_tables, at timestamptz)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    names text;
    fillers text;
    chunk regclass;
    place tid;
BEGIN
    IF EXISTS (
        SELECT FROM timescaledb_information.chunks AS c
        WHERE c.hypertable_schema = 'inosec' AND c.hypertable_name = declared.name
            AND c.range_start <= at AND c.range_end > at
    ) THEN
        RETURN false;
    END IF;
    SELECT
        string_agg(quote_ident(attname), ', '),
        string_agg(CASE
            WHEN attname = declared.time_column THEN quote_literal(at)
            WHEN atttypid IN ('timestamptz'::regtype) THEN quote_literal(at)
            WHEN atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float8'::regtype) THEN '0'
            WHEN atttypid = 'bool'::regtype THEN 'false'
            WHEN atttypid = 'uuid'::regtype THEN quote_literal('00000000-0000-0000-0000-000000000000')
            WHEN atttypid = 'inet'::regtype THEN quote_literal('0.0.0.0')
            WHEN atttypid IN ('jsonb'::regtype, 'text[]'::regtype) THEN quote_literal('{}')
            ELSE quote_literal('')
        END, ', ')
    INTO names, fillers
    FROM pg_attribute
    WHERE attrelid = format('inosec.%I', declared.name)::regclass
        AND attnum > 0 AND NOT attisdropped AND attnotnull AND attidentity = ''
        AND (NOT atthasdef OR attname = declared.time_column);
    EXECUTE format('INSERT INTO inosec.%I (%s) VALUES (%s) RETURNING tableoid, ctid', declared.name, names, fillers)
    INTO chunk, place;
    EXECUTE format('DELETE FROM %s WHERE ctid = $1', chunk) USING place;
    RETURN true;
END
$$;

-- Partitions for now and the time ahead, of all tables; returns how many were missing.
CREATE OR REPLACE FUNCTION inosec.ensure_partitions_ahead(ahead interval)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FILTER (WHERE inosec.ensure_partition(t.name, at))
    FROM inosec.partitioned_tables AS t,
        generate_series(now(), now() + greatest(ahead, t.width), t.width) AS at
$$;

REVOKE ALL ON FUNCTION
    inosec.partition_table(text, text, interval),
    inosec.ensure_partition(text, timestamptz),
    inosec.ensure_chunk(inosec.partitioned_tables, timestamptz),
    inosec.ensure_partitions_ahead(interval)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    inosec.ensure_partition(text, timestamptz),
    inosec.ensure_partitions_ahead(interval)
TO inosec_loader;
GRANT SELECT ON inosec.hot_store, inosec.partitioned_tables TO inosec_loader, inosec_correlator, inosec_admin;

-- Puts a table under row-level security and shows it to the API as a view of the same name.
-- The view has no security_barrier: the policy is enforced without it, and with it an ordered scan
-- of a tenant's newest 100 rows reads all of them.
CREATE OR REPLACE FUNCTION inosec.expose(table_name text, tenant_column text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('ALTER TABLE inosec.%I ENABLE ROW LEVEL SECURITY', table_name);
    IF NOT EXISTS (
        SELECT FROM pg_policy
        WHERE polrelid = format('inosec.%I', table_name)::regclass AND polname = 'tenant_of_session'
    ) THEN
        EXECUTE format(
            'CREATE POLICY tenant_of_session ON inosec.%I FOR SELECT TO inosec_view_owner '
            'USING (%I = nullif(current_setting(''inosec.tenant_id'', true), '''')::uuid)',
            table_name, tenant_column
        );
    END IF;
    EXECUTE format('GRANT SELECT ON inosec.%I TO inosec_view_owner', table_name);
    EXECUTE format('CREATE OR REPLACE VIEW inosec_api.%I AS SELECT * FROM inosec.%I', table_name, table_name);
    EXECUTE format('ALTER VIEW inosec_api.%I OWNER TO inosec_view_owner', table_name);
    EXECUTE format('GRANT SELECT ON inosec_api.%I TO inosec_api', table_name);
END
$$;
REVOKE ALL ON FUNCTION inosec.expose(text, text) FROM PUBLIC;
