//! Detection in the road: a decoded batch in, the same batch with a threat event for each match out.
//!
//! Pure: the same batch, rules and limiter's memory give the same threat events with the same ids, so a
//! batch that is done again writes what it wrote before.

use std::collections::BTreeMap;
use std::sync::Arc;

use inosec_schemas::{Batch, Column, Columns, Extracted, Rows, Suppressed, TenantId, Value, derived_id};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::limit::{Limiter, minute};
use crate::ruleset::Ruleset;
use crate::sigma::{ClassId, Hit, Matcher, Rule, RuleId};

/// Who our detections are from, in `threat_events.source`.
const SOURCE: &str = "inosec";
/// What a matcher remembers of values it has met, in bytes.
const MEMO: usize = 32 << 20;
/// Longer values of matched fields are cut.
const LONGEST_VALUE: usize = 1024;
/// Matched fields beyond so many bytes are left out: the raw message has them.
const MOST_FIELDS: usize = 8 << 10;

/// Runs the rules of each event's tenant over batches. One per lane.
#[derive(Debug)]
pub struct Detector {
    ruleset: Arc<Ruleset>,
    limiter: Arc<Limiter>,
    matcher: Matcher,
    columns: Columns<'static>,
    /// Of the class at hand: each event's row in the batch, and its tenant's number.
    rows: Vec<u32>,
    owners: Vec<u32>,
    hits: Vec<Hit>,
}

/// Where a batch's rows hold what threat events repeat.
struct Events<'a> {
    rows: &'a Rows,
    event_id: Option<usize>,
    event_time: Option<usize>,
    ingested_at: Option<usize>,
    host_name: Option<usize>,
    user_name: Option<usize>,
    src_ip: Option<usize>,
    dst_ip: Option<usize>,
}

/// A match that is to be written.
struct Match<'a> {
    rule: RuleId,
    /// The event's row in the batch.
    row: usize,
    tenant: TenantId,
    event_id: Uuid,
    /// The event's row in its class' columns.
    cell: u32,
    columns: &'a Columns<'a>,
}

impl Detector {
    /// Detects with these rules; the limiter is shared by all lanes of a process.
    #[must_use]
    pub fn new(ruleset: Arc<Ruleset>, limiter: Arc<Limiter>) -> Self {
        let matcher = Matcher::new(Arc::clone(ruleset.engine()), MEMO);
        let columns = Columns::new(ruleset.engine().fields().len());
        Self { ruleset, limiter, matcher, columns, rows: Vec::new(), owners: Vec::new(), hits: Vec::new() }
    }

    /// The rules it runs.
    #[must_use]
    pub fn ruleset(&self) -> &Arc<Ruleset> {
        &self.ruleset
    }

    /// Takes other rules. What was learnt of values is kept if they are compiled alike.
    pub fn set_ruleset(&mut self, ruleset: Arc<Ruleset>) {
        if Arc::ptr_eq(ruleset.engine(), self.ruleset.engine()) {
            self.ruleset = ruleset;
        } else {
            *self = Self::new(ruleset, Arc::clone(&self.limiter));
        }
    }

    /// Adds to the batch's detections what its events match.
    pub fn detect(&mut self, batch: &mut Batch, extracted: &Extracted) {
        let mut suppressed = BTreeMap::new();
        let Batch { messages, rows, detections, .. } = batch;
        let events = Events::of(rows);
        for (class, of_class) in &extracted.classes {
            if of_class.messages.is_empty() {
                continue;
            }
            self.find_owners(rows, &of_class.messages);
            let columns = of_class.fill(std::mem::take(&mut self.columns));
            self.hits.clear();
            let tenants = self.ruleset.tenants();
            self.matcher.run(ClassId(*class), &columns, tenants, &self.owners, &mut self.hits);
            for hit in &self.hits {
                let row = self.rows[hit.row as usize] as usize;
                let (tenant, event_id) = (rows.tenant(row), events.event_id(row));
                let found = Match { rule: hit.rule, row, tenant, event_id, cell: hit.row, columns: &columns };
                let arrived_at = messages.entries[rows.message[row] as usize].arrived_at;
                self.store(&found, arrived_at, &events, detections, &mut suppressed);
            }
            self.columns = columns.recycle();
        }
        detections.finish();
        batch.suppressed.extend(suppressed.into_values());
    }

    fn find_owners(&mut self, rows: &Rows, messages: &[u32]) {
        self.rows.clear();
        self.owners.clear();
        let (mut row, mut last) = (0, None);
        for message in messages {
            // Both ascend.
            while rows.message[row] != *message {
                row += 1;
            }
            let tenant = rows.tenant(row);
            let owner = match last {
                Some((known, owner)) if known == tenant => owner,
                _ => self.ruleset.number(tenant),
            };
            last = Some((tenant, owner));
            self.rows.push(row as u32);
            self.owners.push(owner);
        }
    }

    fn store(
        &self,
        found: &Match<'_>,
        arrived_at: i64,
        events: &Events<'_>,
        detections: &mut Rows,
        suppressed: &mut BTreeMap<(i64, TenantId, RuleId), Suppressed>,
    ) {
        let Match { rule, tenant, event_id, .. } = *found;
        let (detail, minute) = (self.ruleset.detail(rule), minute(arrived_at));
        if self.limiter.lock().admit(minute, tenant, detail.key, event_id) {
            self.add(found, events, detections);
            return;
        }
        let of = self.ruleset.engine().rule(rule);
        let entry = suppressed.entry((minute, tenant, rule)).or_insert_with(|| Suppressed {
            minute,
            tenant,
            rule_id: of.id.clone(),
            rule_revision: of.revision.clone(),
            title: of.title.clone(),
            matches: 0,
            limit: self.limiter.limit(),
            event_id,
            notice_id: derived_id(tenant, &format!("limit:{}", of.id), minute_id(minute)),
        });
        entry.matches += 1;
    }

    /// Adds a threat event.
    fn add(&self, found: &Match<'_>, events: &Events<'_>, detections: &mut Rows) {
        let Match { row, tenant, event_id, .. } = *found;
        let rule = self.ruleset.engine().rule(found.rule);
        let detail = self.ruleset.detail(found.rule);
        let mut out = Writer { rows: detections };
        out.uuid("id", derived_id(tenant, &rule.id, event_id));
        out.uuid("tenant_id", tenant.0);
        out.uuid("event_id", event_id);
        out.text("signature", &rule.title);
        out.integer("severity_id", detail.severity_id);
        let ts = events.rows.ts(row);
        out.time("ts", ts);
        out.time("detected_at", events.time(events.event_time, row).unwrap_or(ts));
        out.time("ingested_at", events.time(events.ingested_at, row).unwrap_or(ts));
        out.text("source", SOURCE);
        out.text("rule_id", &rule.id);
        out.text("rule_revision", rule.revision.as_deref().unwrap_or_default());
        out.text("rule_author", rule.author.as_deref().unwrap_or_default());
        out.list("techniques", &detail.techniques);
        out.bytes("host_name", events.text(events.host_name, row));
        out.bytes("user_name", events.text(events.user_name, row));
        out.address("src_ip", events.address(events.src_ip, row));
        out.address("dst_ip", events.address(events.dst_ip, row));
        out.json("payload", &self.payload(found, rule, &detail.fields));
        detections.message.push(events.rows.message[row]);
    }

    /// The rule's level, and the fields that it tests as far as the event has them.
    fn payload(&self, found: &Match<'_>, rule: &Rule, fields: &[String]) -> Json {
        let names = self.ruleset.engine().fields();
        let (mut matched, mut bytes) = (Map::new(), 0);
        for name in fields {
            let Some(field) = names.get(name) else { continue };
            let values = found.columns.cells(field, found.cell).iter().filter_map(|cell| match cell.value {
                Value::Text(text) => Some(Json::from(presentable(text))),
                Value::Null => Some(Json::Null),
                Value::Other => None,
            });
            let mut values: Vec<Json> = values.collect();
            let value = match values.len() {
                0 => continue,
                1 => values.remove(0),
                _ => Json::Array(values),
            };
            bytes += name.len() + value.to_string().len();
            if bytes > MOST_FIELDS {
                break;
            }
            matched.insert(name.clone(), value);
        }
        json!({ "level": rule.level.name(), "fields": matched })
    }
}

/// A value as a threat event shows it; jsonb can't hold NUL.
fn presentable(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_VALUE)].replace('\0', "\u{fffd}")
}

/// Stands for a minute in [`derived_id`].
fn minute_id(minute: i64) -> Uuid {
    Uuid::from_u128(minute.cast_unsigned().into())
}

impl<'a> Events<'a> {
    fn of(rows: &'a Rows) -> Self {
        let column = |name| rows.stream.column(name);
        Self {
            rows,
            event_id: column("event_id"),
            event_time: column("event_time"),
            ingested_at: column("ingested_at"),
            host_name: column("host_name"),
            user_name: column("user_name"),
            src_ip: column("src_ip"),
            dst_ip: column("dst_ip"),
        }
    }

    fn event_id(&self, row: usize) -> Uuid {
        match self.event_id.map(|column| &self.rows.columns[column]) {
            Some(Column::Uuid(values)) => values[row].unwrap_or_default(),
            _ => Uuid::nil(),
        }
    }

    fn time(&self, column: Option<usize>, row: usize) -> Option<i64> {
        match &self.rows.columns[column?] {
            Column::Timestamp(values) => values[row],
            _ => None,
        }
    }

    fn text(&self, column: Option<usize>, row: usize) -> Option<&'a [u8]> {
        self.rows.text(column?, row)
    }

    fn address(&self, column: Option<usize>, row: usize) -> Option<std::net::IpAddr> {
        match &self.rows.columns[column?] {
            Column::Inet(values) => values[row],
            _ => None,
        }
    }
}

/// Writes the next row of a stream, column by column; a column the stream hasn't is left out.
struct Writer<'a> {
    rows: &'a mut Rows,
}

impl Writer<'_> {
    fn column(&mut self, name: &str) -> Option<&mut Column> {
        self.rows.stream.column(name).map(|position| self.rows.end_of(position))
    }

    fn uuid(&mut self, name: &str, value: Uuid) {
        if let Some(Column::Uuid(values)) = self.column(name) {
            values.push(Some(value));
        }
    }

    fn time(&mut self, name: &str, value: i64) {
        if let Some(Column::Timestamp(values)) = self.column(name) {
            values.push(Some(value));
        }
    }

    fn integer(&mut self, name: &str, value: i16) {
        if let Some(Column::Int16(values)) = self.column(name) {
            values.push(Some(value));
        }
    }

    fn address(&mut self, name: &str, value: Option<std::net::IpAddr>) {
        if let Some(Column::Inet(values)) = self.column(name) {
            values.push(value);
        }
    }

    /// A text, cut to what the column takes; PostgreSQL's text can't hold NUL.
    fn text(&mut self, name: &str, value: &str) {
        let Some(position) = self.rows.stream.column(name) else { return };
        let text = value.replace('\0', "\u{fffd}");
        let cap = self.rows.stream.columns[position].cap as usize;
        let text = &text[..text.floor_char_boundary(cap)];
        self.bytes(name, (!text.is_empty()).then_some(text.as_bytes()));
    }

    /// A text that is as the column takes it.
    fn bytes(&mut self, name: &str, value: Option<&[u8]>) {
        let slice = value.map(|value| self.rows.push_text(value));
        if let Some(column) = self.column(name) {
            column.push_slice(slice);
        }
    }

    fn list(&mut self, name: &str, items: &[String]) {
        let text: String = items.iter().flat_map(|item| [item.as_str(), "\0"]).collect();
        self.bytes(name, (!items.is_empty()).then_some(text.as_bytes()));
    }

    fn json(&mut self, name: &str, value: &Json) {
        self.bytes(name, Some(value.to_string().as_bytes()));
    }
}
