-- The messages exactly as received, compressed together. A row finds its block by
-- (tenant_id, stream, seq) within its own partition interval.

CREATE TABLE IF NOT EXISTS inosec.raw_blocks (
    ts timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    stream text NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    events integer NOT NULL,
    codec text NOT NULL,
    data bytea NOT NULL
) /*plain: PARTITION BY RANGE (ts)*/;
-- Compressed already.
ALTER TABLE inosec.raw_blocks ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON COLUMN inosec.raw_blocks.data IS 'zstd of: u32 count; count × (u64 seq, u32 length); the messages one after another; little-endian.';

SELECT inosec.partition_table('raw_blocks', 'ts', interval '1 day');
CREATE INDEX IF NOT EXISTS raw_blocks_seq ON inosec.raw_blocks (tenant_id, stream, first_seq);
SELECT inosec.expose('raw_blocks', 'tenant_id');

-- Small blocks are deleted and inserted again as larger ones.
GRANT SELECT, INSERT, DELETE ON inosec.raw_blocks TO inosec_loader;
