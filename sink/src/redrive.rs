//! Sends dead letters through the ordinary road again, each exactly once.
//!
//! A letter's message gets its old topic, partition, offset, arrival and headers back, hence its old
//! ids. The proof in its transaction is the letter itself: locked while `redriven_at` is null, then
//! marked. What is still rejected stays as it was and is reported with the reason of today.

use std::collections::BTreeMap;
use std::sync::Arc;

use inosec_schemas::{EventIds, Message, Messages, Topic};
use uuid::Uuid;

use crate::dlq::{Letter, LetterContents, LetterFilter};
use crate::letters::headers_of_json;
use crate::transaction::Proof;
use crate::writer::{Redo, Settled, prepare, refresh_directory, settle};
use crate::{Error, Store};

/// Letters of one transaction at most.
const LETTERS: usize = 1000;
/// Bytes of one transaction at most, unless a single letter is larger.
const BYTES: i64 = 16 << 20;

/// What became of the letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Stored now.
    pub redriven: u64,
    /// Somebody else was quicker.
    pub taken: u64,
    /// Still rejected: id, reason, detail.
    pub still: Vec<(i64, &'static str, String)>,
    /// Not tried: id and why.
    pub skipped: Vec<(i64, String)>,
}

/// Redrives at most `limit` letters that match, oldest first. `topics` says which stream a topic
/// feeds and how its tenants are known today; `actor` goes to the audit trail.
pub async fn redrive(
    store: &Arc<Store>,
    filter: &LetterFilter,
    limit: i64,
    topics: &[Arc<Topic>],
    redo: &Redo,
    actor: &str,
) -> Result<Redriven, Error> {
    let mut done = Redriven::default();
    let letters = store.oldest_letters(&LetterFilter { redriven: false, ..filter.clone() }, limit).await?;
    for ids in portions(letters, &mut done) {
        let mut by_topic = BTreeMap::<i32, Vec<LetterContents>>::new();
        for letter in store.letter_contents(&ids).await? {
            by_topic.entry(letter.topic_key).or_default().push(letter);
        }
        for (key, letters) in by_topic {
            match topic(store, key, topics).await? {
                Some(topic) => drive(store, &topic, letters, redo, &mut done).await?,
                None => done.skipped.extend(letters.iter().map(|letter| {
                    (letter.letter.id, format!("topic {} is not configured", letter.letter.topic))
                })),
            }
        }
    }
    audit(store, actor, &done).await?;
    Ok(done)
}

/// Ids in portions of bounded size; letters without bytes are set aside.
fn portions(letters: Vec<Letter>, done: &mut Redriven) -> Vec<Vec<i64>> {
    let mut portions = Vec::new();
    let (mut ids, mut bytes) = (Vec::new(), 0);
    for letter in letters {
        if letter.payload_bytes.is_none() && letter.reason != "tombstone" {
            let why = "beyond the tenant's quota only offsets were kept: replay them from Kafka".to_owned();
            done.skipped.push((letter.id, why));
            continue;
        }
        let size = i64::from(letter.payload_bytes.unwrap_or(0));
        if !ids.is_empty() && (ids.len() >= LETTERS || bytes + size > BYTES) {
            portions.push(std::mem::take(&mut ids));
            bytes = 0;
        }
        ids.push(letter.id);
        bytes += size;
    }
    if !ids.is_empty() {
        portions.push(ids);
    }
    portions
}

/// The topic as it was when the letter arrived: a re-created one has other ids.
async fn topic(store: &Store, key: i32, topics: &[Arc<Topic>]) -> Result<Option<Arc<Topic>>, Error> {
    let session = store.session().await?;
    let sql = "SELECT cluster, topic, topic_id FROM inosec.kafka_topics WHERE key = $1";
    let row = session.query_opt(sql, &[&key]).await.map_err(Error::at("reading a topic"))?;
    let Some(row) = row else { return Ok(None) };
    let (cluster, name, id): (String, String, Option<Uuid>) = (row.get(0), row.get(1), row.get(2));
    let Some(today) = topics.iter().find(|topic| topic.name == name) else { return Ok(None) };
    Ok(Some(Arc::new(Topic {
        event_ids: EventIds::new(&cluster, &name, id),
        cluster,
        name,
        id,
        key,
        stream: Arc::clone(&today.stream),
        tenant: today.tenant,
    })))
}

/// Redrives letters of one topic, halving what the database refuses.
async fn drive(
    store: &Arc<Store>,
    topic: &Arc<Topic>,
    letters: Vec<LetterContents>,
    redo: &Redo,
    done: &mut Redriven,
) -> Result<(), Error> {
    let mut work = vec![letters];
    while let Some(mut letters) = work.pop() {
        let ids: Vec<i64> = letters.iter().map(|letter| letter.letter.id).collect();
        let sealed = prepare(store, messages(topic, &letters), redo).await?;
        let dead = &sealed.batch.dead;
        if dead.len() == letters.len() {
            done.note_dead(&ids, dead);
            continue;
        }
        match settle(store, &sealed, &Proof::Letters(ids.clone())).await? {
            Settled::Committed(_) => {
                done.redriven += (letters.len() - dead.len()) as u64;
                done.note_dead(&ids, dead);
            }
            Settled::Taken(taken) => {
                done.taken += taken.len() as u64;
                letters.retain(|letter| !taken.contains(&letter.letter.id));
                work.extend((!letters.is_empty()).then_some(letters));
            }
            Settled::Stale => {
                refresh_directory(store).await?;
                work.push(letters);
            }
            Settled::Refused(error) if letters.len() == 1 => {
                let reason = inosec_schemas::Reason::Constraint.name();
                done.still.push((ids[0], reason, error.refusal()));
            }
            Settled::Refused(_) => {
                let second = letters.split_off(letters.len() / 2);
                work.extend([second, letters]);
            }
            Settled::Lost(_) => unreachable!("only spans are lost"),
        }
    }
    Ok(())
}

impl Redriven {
    fn note_dead(&mut self, ids: &[i64], dead: &[inosec_schemas::DeadLetter]) {
        let still =
            dead.iter().map(|dead| (ids[dead.message as usize], dead.reason.name(), dead.detail.clone()));
        self.still.extend(still);
    }
}

/// The letters' messages as Kafka delivered them, without spans: no offset moves.
fn messages(topic: &Arc<Topic>, letters: &[LetterContents]) -> Messages {
    let mut messages = Messages::new(Arc::clone(topic));
    for letter in letters {
        let headers = headers_of_json(&letter.headers);
        let headers: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let message = Message {
            start: 0,
            end: 0,
            headers: (0, 0),
            partition: letter.letter.partition,
            offset: letter.letter.offset,
            arrived_at: letter.arrived_at,
            tombstone: letter.payload.is_none(),
        };
        messages.push(message, letter.payload.as_deref().unwrap_or_default(), &headers);
    }
    messages
}

async fn audit(store: &Store, actor: &str, done: &Redriven) -> Result<(), Error> {
    let sql = "INSERT INTO inosec.audit_trails (actor, action, object, detail)
        VALUES ($1, 'dlq.redrive', 'dead_letters', $2::text::jsonb)";
    let detail = serde_json::json!({
        "redriven": done.redriven,
        "still_rejected": done.still.len(),
        "skipped": done.skipped.len(),
    });
    let session = store.session().await?;
    let written = session.execute(sql, &[&actor, &detail.to_string()]).await;
    written.map(drop).map_err(Error::at("writing the audit trail"))
}
