//! A row of `threat_events` in a batch as the correlator's role reads it back from the table, so that what
//! correlates without a database comes to the same.

use std::net::IpAddr;

use inosec_schemas::{Column, Rows, StoredThreatEvent};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The member of a payload that holds what a match keeps.
#[derive(serde::Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    fields: Option<&'a RawValue>,
}

/// Reads a row of `threat_events`.
#[must_use]
pub fn stored(rows: &Rows, row: usize) -> StoredThreatEvent {
    let reader = Reader { rows, row };
    let payload: Option<Payload<'_>> =
        reader.text("payload").and_then(|text| serde_json::from_str(text).ok());
    let fields = payload.and_then(|payload| payload.fields).map(RawValue::get);
    let owned = |name| reader.text(name).map(str::to_owned);
    let address = |name| reader.address(name).map(|address| address.to_string());
    let severity = rows.stream.column("severity_id").and_then(|position| rows.integer(position, row));
    let ts = rows.ts(row);
    StoredThreatEvent {
        rule_id: owned("rule_id").unwrap_or_default(),
        rule_author: owned("rule_author"),
        signature: owned("signature").unwrap_or_default(),
        severity_id: severity.and_then(|severity| i16::try_from(severity).ok()).unwrap_or_default(),
        detected_at: reader.time("detected_at").unwrap_or(ts),
        ingested_at: reader.time("ingested_at").unwrap_or(ts),
        ts,
        host_name: owned("host_name"),
        user_name: owned("user_name"),
        src_ip: address("src_ip"),
        dst_ip: address("dst_ip"),
        fields: StoredThreatEvent::read_fields(fields),
        ..StoredThreatEvent::of(rows.tenant(row), reader.uuid("id").unwrap_or_default())
    }
}

struct Reader<'a> {
    rows: &'a Rows,
    row: usize,
}

impl<'a> Reader<'a> {
    fn column(&self, name: &str) -> Option<&'a Column> {
        self.rows.stream.column(name).map(|position| &self.rows.columns[position])
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        match self.column(name)? {
            Column::Text(values) | Column::Json(values) => {
                values[self.row].and_then(|slice| std::str::from_utf8(self.rows.slice(slice)).ok())
            }
            _ => None,
        }
    }

    fn uuid(&self, name: &str) -> Option<Uuid> {
        match self.column(name)? {
            Column::Uuid(values) => values[self.row],
            _ => None,
        }
    }

    fn time(&self, name: &str) -> Option<i64> {
        match self.column(name)? {
            Column::Timestamp(values) => values[self.row],
            _ => None,
        }
    }

    fn address(&self, name: &str) -> Option<IpAddr> {
        match self.column(name)? {
            Column::Inet(values) => values[self.row],
            _ => None,
        }
    }
}
