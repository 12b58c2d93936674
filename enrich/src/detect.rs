//! Detection in the road: a decoded batch in, the same batch with a threat event for each match out.
//!
//! Pure: the same batch, rules and limiter's memory give the same threat events with the same ids, so a
//! batch that is done again writes what it wrote before. Events come chunk by chunk and are taken in the
//! order of arrival, so that nothing depends on where a chunk ends.

use std::sync::Arc;

use inosec_schemas::{
    Batch, Column, Columns, Extracted, Fill, Rows, Suppressed, TenantId, Value, derived_id,
};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::limit::{Limiter, minute};
use crate::ruleset::Ruleset;
use crate::sigma::{ClassId, Hit, Matcher, RuleId};

/// Who our detections are from, in `threat_events.source`.
const SOURCE: &str = "inosec";
/// Longer values of matched fields are cut.
const LONGEST_VALUE: usize = 1024;
/// Matched fields beyond so many bytes are left out: the raw message has them.
const MOST_FIELDS: usize = 8 << 10;

/// Runs the rules of each event's tenant over batches. One per lane.
#[derive(Debug)]
pub struct Detector {
    ruleset: Arc<Ruleset>,
    limiter: Arc<Limiter>,
    memo: usize,
    matcher: Matcher,
    columns: Columns<'static>,
    /// Of the class at hand: each event's row in the batch, and its tenant's number.
    rows: Vec<u32>,
    owners: Vec<u32>,
    hits: Vec<Hit>,
    /// Of all classes.
    matches: Vec<Match>,
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

/// A match. Ordered by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    /// The event's row in the batch.
    row: u32,
    rule: RuleId,
    class: u32,
    /// The event's place in its class.
    event: u32,
}

impl Detector {
    /// Detects with these rules; the limiter is shared by all lanes of a process. What is learnt of values
    /// takes about `memo` bytes.
    #[must_use]
    pub fn new(ruleset: Arc<Ruleset>, limiter: Arc<Limiter>, memo: usize) -> Self {
        let matcher = Matcher::new(Arc::clone(ruleset.engine()), memo);
        let columns = Columns::new(ruleset.engine().fields().len());
        let (rows, owners, hits, matches) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { ruleset, limiter, memo, matcher, columns, rows, owners, hits, matches }
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
            *self = Self::new(ruleset, Arc::clone(&self.limiter), self.memo);
        }
    }

    /// Adds to the batch's detections what the events that were extracted match; the next chunk's may follow.
    pub fn detect(&mut self, batch: &mut Batch, extracted: &Extracted) {
        self.matches.clear();
        for (class, of_class) in &extracted.classes {
            if of_class.messages.is_empty() {
                continue;
            }
            self.find_owners(&batch.rows, &of_class.messages);
            let columns = extracted.fill(of_class, std::mem::take(&mut self.columns));
            self.hits.clear();
            let tenants = self.ruleset.tenants();
            self.matcher.run(ClassId(*class), &columns, tenants, &self.owners, &mut self.hits);
            self.matches.extend(self.hits.iter().map(|hit| {
                let row = self.rows[hit.row as usize];
                Match { row, rule: hit.rule, class: *class, event: hit.row }
            }));
            self.columns = columns.recycle();
        }
        self.matches.sort_unstable();
        let events = Events::of(&batch.rows);
        for found in &self.matches {
            let row = found.row as usize;
            let (tenant, event_id) = (batch.rows.tenant(row), events.event_id(row));
            let minute = minute(batch.messages.entries[batch.rows.message[row] as usize].arrived_at);
            let key = self.ruleset.detail(found.rule).key;
            if self.limiter.lock().admit(minute, tenant, key, event_id) {
                self.add(found, &events, extracted, &mut batch.detections);
            } else {
                self.suppress(found.rule, minute, tenant, event_id, &mut batch.suppressed);
            }
        }
        batch.detections.finish();
    }

    fn find_owners(&mut self, rows: &Rows, messages: &[u32]) {
        self.rows.clear();
        self.owners.clear();
        // Both ascend.
        let mut row = rows.message.partition_point(|message| *message < messages[0]);
        let mut last = None;
        for message in messages {
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

    /// Counts a match beyond the limit.
    fn suppress(
        &self,
        rule: RuleId,
        minute: i64,
        tenant: TenantId,
        event_id: Uuid,
        all: &mut Vec<Suppressed>,
    ) {
        let of = self.ruleset.engine().rule(rule);
        let key = (minute, tenant, of.id.as_str());
        match all.binary_search_by(|entry| (entry.minute, entry.tenant, entry.rule_id.as_str()).cmp(&key)) {
            Ok(at) => all[at].matches += 1,
            Err(at) => {
                let entry = Suppressed {
                    minute,
                    tenant,
                    rule_id: of.id.clone(),
                    rule_revision: of.revision.clone(),
                    title: of.title.clone(),
                    matches: 1,
                    limit: self.limiter.limit(),
                    event_id,
                    notice_id: derived_id(tenant, &format!("limit:{}", of.id), minute_id(minute)),
                };
                all.insert(at, entry);
            }
        }
    }

    /// Adds a threat event.
    fn add(&self, found: &Match, events: &Events<'_>, extracted: &Extracted, detections: &mut Rows) {
        let row = found.row as usize;
        let (tenant, event_id) = (events.rows.tenant(row), events.event_id(row));
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
        out.json("payload", &self.payload(found, events, extracted));
        detections.message.push(events.rows.message[row]);
    }

    /// The rule's level, and the fields that it tests or keeps as far as the event has them. A kept one
    /// that it hasn't may be a column of its row, such as the country of an address.
    fn payload(&self, found: &Match, events: &Events<'_>, extracted: &Extracted) -> Json {
        let rule = self.ruleset.engine().rule(found.rule);
        let names = self.ruleset.engine().fields();
        let of_class = &extracted.classes[&found.class];
        let (mut matched, mut bytes) = (Map::new(), 0);
        for name in &self.ruleset.detail(found.rule).fields {
            let values =
                names.get(name).into_iter().flat_map(|field| extracted.values(of_class, found.event, field));
            let values = values.filter_map(|value| match value {
                Value::Text(text) => Some(Json::from(presentable(text))),
                Value::Null => Some(Json::Null),
                Value::Other => None,
            });
            let mut values: Vec<Json> = values.collect();
            if values.is_empty() && rule.kept.contains(name) {
                values.extend(events.column(name, found.row as usize).map(Json::from));
            }
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

    /// What the event says in the column of this name, as text; nothing of columns that say where it lies.
    fn column(&self, name: &str, row: usize) -> Option<String> {
        let position = self.rows.stream.column(name)?;
        if self.rows.stream.columns[position].fill != Fill::Message {
            return None;
        }
        match &self.rows.columns[position] {
            Column::Text(_) => {
                let text = self.rows.text(position, row)?;
                Some(presentable(&String::from_utf8_lossy(text)))
            }
            Column::Inet(values) => values[row].map(|address| address.to_string()),
            Column::Bool(values) => values[row].map(|value| value.to_string()),
            Column::Float64(values) => values[row].map(|value| value.to_string()),
            Column::Int16(_) | Column::Int32(_) | Column::Int64(_) => {
                self.rows.integer(position, row).map(|value| value.to_string())
            }
            Column::Uuid(values) => values[row].map(|value| value.to_string()),
            Column::Timestamp(_) | Column::Json(_) | Column::TextList(_) | Column::Bytes(_) => None,
        }
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
