//! Dead letters as part of a writer's transaction: the message with its bytes, reason and place.
//!
//! A tenant's bytes are counted per UTC day. Beyond the quota only offsets are kept: neighbours with
//! the same reason share one row without payload, so a flood of garbage costs almost nothing.

use deadpool_postgres::Transaction;
use hashbrown::HashMap;
use inosec_schemas::{Batch, DeadLetter, Headers, Message, Messages, Reason};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::Error;
use crate::micros::Micros;

/// Letters of one statement, column by column.
#[derive(Default)]
struct Letters<'a> {
    tenants: Vec<Option<Uuid>>,
    reasons: Vec<Reason>,
    details: Vec<String>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    last_offsets: Vec<i64>,
    arrivals: Vec<Micros>,
    headers: Vec<Option<String>>,
    payloads: Vec<Option<&'a [u8]>>,
}

/// Writes a batch's dead letters.
pub(crate) async fn insert(transaction: &Transaction<'_>, batch: &Batch, quota: u64) -> Result<(), Error> {
    if batch.dead.is_empty() {
        return Ok(());
    }
    let mut left = charge(transaction, batch, quota).await?;
    let mut letters = Letters::default();
    for dead in &batch.dead {
        letters.push(&batch.messages, dead, &mut left);
    }
    let sql = "INSERT INTO inosec.dead_letters (topic, topic_key, tenant_id, reason, detail, partition,
            \"offset\", last_offset, arrived_at, headers, payload)
        SELECT $1, $2, tenant_id, reason, detail, partition, first, last, arrived_at, headers::jsonb, payload
        FROM unnest($3::uuid[], $4::text[], $5::text[], $6::int4[], $7::int8[], $8::int8[], $9::timestamptz[],
            $10::text[], $11::bytea[])
            AS l (tenant_id, reason, detail, partition, first, last, arrived_at, headers, payload)";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at("storing dead letters"))?;
    let topic = batch.messages.topic();
    let reasons: Vec<&str> = letters.reasons.iter().map(|reason| reason.name()).collect();
    let inserted = transaction
        .execute(
            &statement,
            &[
                &topic.name,
                &topic.key,
                &letters.tenants,
                &reasons,
                &letters.details,
                &letters.partitions,
                &letters.offsets,
                &letters.last_offsets,
                &letters.arrivals,
                &letters.headers,
                &letters.payloads,
            ],
        )
        .await;
    inserted.map(drop).map_err(Error::at("storing dead letters"))
}

/// Books the batch's bytes on each tenant's day, in tenant order; returns how many of this batch's
/// bytes each may still store.
async fn charge(
    transaction: &Transaction<'_>,
    batch: &Batch,
    quota: u64,
) -> Result<HashMap<Uuid, i64, foldhash::fast::RandomState>, Error> {
    let mut offered = std::collections::BTreeMap::<Uuid, (i64, i64)>::new();
    for dead in &batch.dead {
        let entry = offered.entry(tenant(dead)).or_default();
        entry.0 += 1;
        entry.1 += size(&batch.messages, &batch.messages.entries[dead.message as usize]);
    }
    let tenants: Vec<Uuid> = offered.keys().copied().collect();
    let (letters, bytes): (Vec<i64>, Vec<i64>) = offered.values().copied().unzip();
    let sql = "INSERT INTO inosec.dead_letter_usage AS used (day, tenant_id, letters, bytes)
        SELECT (now() AT TIME ZONE 'UTC')::date, tenant_id, letters, bytes
        FROM unnest($1::uuid[], $2::int8[], $3::int8[]) AS offered (tenant_id, letters, bytes)
        ON CONFLICT (day, tenant_id)
        DO UPDATE SET letters = used.letters + excluded.letters, bytes = used.bytes + excluded.bytes
        RETURNING tenant_id, bytes";
    let doing = "counting dead letters";
    let statement = transaction.prepare_cached(sql).await.map_err(Error::at(doing))?;
    let rows =
        transaction.query(&statement, &[&tenants, &letters, &bytes]).await.map_err(Error::at(doing))?;
    let quota = i64::try_from(quota).unwrap_or(i64::MAX);
    let left = |row: &tokio_postgres::Row| {
        let (tenant, used): (Uuid, i64) = (row.get(0), row.get(1));
        let before = used - offered.get(&tenant).map_or(0, |(_, bytes)| *bytes);
        (tenant, quota.saturating_sub(before))
    };
    Ok(rows.iter().map(left).collect())
}

impl<'a> Letters<'a> {
    fn push(
        &mut self,
        messages: &'a Messages,
        dead: &DeadLetter,
        left: &mut HashMap<Uuid, i64, foldhash::fast::RandomState>,
    ) {
        let message = &messages.entries[dead.message as usize];
        let left = left.entry(tenant(dead)).or_default();
        *left -= size(messages, message);
        let kept = *left >= 0;
        if !kept && self.extends_last(dead, message) {
            self.last_offsets[self.offsets.len() - 1] = message.offset;
            return;
        }
        self.tenants.push(dead.tenant.map(|tenant| tenant.0));
        self.reasons.push(dead.reason);
        self.details.push(dead.detail.replace('\0', ""));
        self.partitions.push(message.partition);
        self.offsets.push(message.offset);
        self.last_offsets.push(message.offset);
        self.arrivals.push(Micros(message.arrived_at));
        let headers = messages.headers(message);
        self.headers.push((kept && !headers.is_empty()).then(|| headers_json(headers).to_string()));
        self.payloads.push((kept && !message.tombstone).then(|| messages.value(message)));
    }

    /// Whether the last row stands for offsets only and this message may join it. Offsets between
    /// the two may have become rows: the range says where rejected messages lie, not how many.
    fn extends_last(&self, dead: &DeadLetter, message: &Message) -> bool {
        let Some(last) = self.offsets.len().checked_sub(1) else { return false };
        self.payloads[last].is_none()
            && self.headers[last].is_none()
            && self.reasons[last] == dead.reason
            && self.tenants[last] == dead.tenant.map(|tenant| tenant.0)
            && self.partitions[last] == message.partition
    }
}

/// The nil tenant stands for "nobody known".
fn tenant(dead: &DeadLetter) -> Uuid {
    dead.tenant.map_or(Uuid::nil(), |tenant| tenant.0)
}

fn size(messages: &Messages, message: &Message) -> i64 {
    let headers = message.headers.1 - message.headers.0;
    i64::try_from(messages.value(message).len()).unwrap_or(i64::MAX - 1) + i64::from(headers)
}

/// Headers as `dead_letters.headers` keeps them, so that `headers->>'inosec-tenant'` works and
/// nothing is lost: a repeated name has a list, a value that is no text has its bytes in hex.
pub(crate) fn headers_json(headers: Headers<'_>) -> Value {
    let mut map = Map::new();
    for (name, value) in headers {
        let name = String::from_utf8_lossy(name).replace('\0', "");
        let value = value.map_or(Value::Null, header_value);
        match map.get_mut(&name) {
            None => drop(map.insert(name, value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(map)
}

/// `jsonb` has no NUL, so texts with one are bytes.
fn header_value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Value::String(text.to_owned()),
        _ => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}

/// The way back: name and value pairs; a name's values keep their order.
pub(crate) fn headers_of_json(json: &Value) -> Vec<(String, Option<Vec<u8>>)> {
    let mut headers = Vec::new();
    let Value::Object(map) = json else { return headers };
    for (name, value) in map {
        match value {
            Value::Array(values) => {
                headers.extend(values.iter().map(|value| (name.clone(), value_of_json(value))));
            }
            value => headers.push((name.clone(), value_of_json(value))),
        }
    }
    headers
}

fn value_of_json(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(map) => {
            let hex = map.get("hex")?.as_str()?;
            let byte = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
            (0..hex.len()).step_by(2).map(byte).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_json_whatever_they_hold() {
        let mut messages = Messages::default();
        let message = Message {
            start: 0,
            end: 0,
            headers: (0, 0),
            partition: 0,
            offset: 0,
            arrived_at: 0,
            tombstone: false,
        };
        let headers: [(&str, Option<&[u8]>); 5] = [
            ("t", Some(b"x")),
            ("bytes", Some(&[0, 255])),
            ("none", None),
            ("t", Some(b"y")),
            ("e", Some(b"")),
        ];
        messages.push(message, b"", &headers);
        let json = headers_json(messages.headers(&messages.entries[0]));
        assert_eq!(json["t"], serde_json::json!(["x", "y"]));
        let back = headers_of_json(&json);
        assert_eq!(back.len(), 5);
        for (name, value) in headers {
            assert!(back.iter().any(|(n, v)| n == name && v.as_deref() == value), "{name}");
        }
    }
}
