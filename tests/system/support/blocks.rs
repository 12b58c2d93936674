//! Reads `raw_blocks` as its document describes them, without inosec's own reader.

use std::collections::HashMap;

use uuid::Uuid;

use super::database::Database;

/// Every stored message of a stream by (tenant, seq).
pub async fn messages(database: &Database, stream: &str) -> HashMap<(Uuid, i64), Vec<u8>> {
    let sql =
        "SELECT tenant_id, first_seq, last_seq, events, codec, data FROM inosec.raw_blocks WHERE stream = $1";
    let mut messages = HashMap::new();
    for row in database.rows(sql, &[&stream]).await {
        let tenant: Uuid = row.get("tenant_id");
        assert_eq!(row.get::<_, &str>("codec"), "zstd");
        let block = read(row.get("data"));
        let events = usize::try_from(row.get::<_, i32>("events")).unwrap();
        assert_eq!(block.len(), events, "raw_blocks.events");
        assert_eq!(block.first().unwrap().0, row.get::<_, i64>("first_seq"));
        assert_eq!(block.last().unwrap().0, row.get::<_, i64>("last_seq"));
        for (seq, message) in block {
            assert!(messages.insert((tenant, seq), message).is_none(), "seq {seq} stands in two blocks");
        }
    }
    messages
}

/// u32 count; count × (u64 seq, u32 length); the messages; little-endian.
fn read(data: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let plain = zstd::decode_all(data).unwrap();
    let number = |at: usize| u32::from_le_bytes(plain[at..at + 4].try_into().unwrap()) as usize;
    let count = number(0);
    let mut start = 4 + count * 12;
    let mut messages = Vec::with_capacity(count);
    for entry in 0..count {
        let at = 4 + entry * 12;
        let seq = i64::from_le_bytes(plain[at..at + 8].try_into().unwrap());
        let length = number(at + 8);
        messages.push((seq, plain[start..start + length].to_vec()));
        start += length;
    }
    assert_eq!(start, plain.len(), "a block holds nothing but its messages");
    messages
}
