//! SigmaHQ's verdicts on lines of the corpus by a full scan of the parsed JSON, that shares nothing with the engine.

use std::collections::{BTreeSet, HashMap};

use inosec_schemas::EventClass;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::corpus;
use super::database::Database;
use super::kafka::Ledger;
use crate::events::{self, WindowsMap};
use crate::oracle::{OracleRule, Placeholders};

/// Tenant, rule and event.
type Match = (Uuid, String, Uuid);

/// SigmaHQ's rules, and their verdicts on the lines that were looked at, by hash.
pub struct FullScan {
    map: WindowsMap,
    rules: Vec<(String, OracleRule)>,
    verdicts: HashMap<[u8; 32], Vec<String>>,
}

impl FullScan {
    /// Of these lines, without what [`covers`] leaves out; `None` without the corpus.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        corpus::folder()?;
        // Rules with placeholders that nobody gave a value aren't loaded.
        let texts = events::rule_texts()?.into_iter().filter(|rule| !rule.yaml.contains("|expand"));
        let rule = |yaml: &str| {
            let id = yaml.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().trim().to_owned();
            (id, OracleRule::parse(yaml, &Placeholders::new()).remove(0))
        };
        let rules = texts.map(|text| rule(&text.yaml)).collect();
        let mut scan = Self { map: WindowsMap::load()?, rules, verdicts: HashMap::new() };
        let mut by_class = HashMap::new();
        lines.into_iter().filter(|line| covers(line)).for_each(|line| scan.look_at(line, &mut by_class));
        Some(scan)
    }

    fn look_at(&mut self, line: &[u8], by_class: &mut HashMap<EventClass, Vec<usize>>) {
        let record: Value = serde_json::from_slice(line).unwrap();
        let mut fields = events::flat(&record["event"]);
        // Two names of Sigma's that forwarders write otherwise.
        for (name, theirs) in [("Provider_Name", "SourceName"), ("Computer", "Hostname")] {
            if let (None, Some(value)) = (fields.get(name), fields.get(theirs).cloned()) {
                fields.insert(name.to_owned(), value);
            }
        }
        let class = self.map.class(&fields);
        let of_class = || (0..self.rules.len()).filter(|rule| self.rules[*rule].1.runs_on(&class)).collect();
        let admitted = by_class.entry(class.clone()).or_insert_with(of_class);
        let matching = admitted.iter().filter(|rule| self.rules[**rule].1.matches(&fields));
        let matching = matching.map(|rule| self.rules[*rule].0.clone()).collect();
        self.verdicts.insert(Sha256::digest(line).into(), matching);
    }

    /// Each match there should be of each of these messages is stored, once, and nothing else of these rules.
    /// Returns how many.
    pub async fn check(&self, database: &Database, ledger: &Ledger) -> usize {
        let sql = "SELECT kafka_partition, kafka_offset, tenant_id, event_id FROM inosec.agent_logs";
        let rows = database.rows(sql, &[]).await;
        let stored: HashMap<(i32, i64), (Uuid, Uuid)> =
            rows.iter().map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3)))).collect();
        assert_eq!(stored.len(), ledger.len());
        let (mut expected, mut covered) = (BTreeSet::new(), BTreeSet::new());
        for (partition, offset, hash) in ledger {
            let Some(rules) = self.verdicts.get(hash) else { continue };
            let (tenant, event) = stored[&(*partition, *offset)];
            covered.insert((tenant, event));
            expected.extend(rules.iter().map(|rule| (tenant, rule.clone(), event)));
        }
        let theirs: Vec<&str> = self.rules.iter().map(|(id, _)| id.as_str()).collect();
        let sql = "SELECT tenant_id, rule_id, event_id FROM inosec.threat_events WHERE rule_id = ANY ($1)";
        let rows = database.rows(sql, &[&theirs]).await;
        let found: Vec<Match> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let found: Vec<Match> =
            found.into_iter().filter(|(tenant, _, event)| covered.contains(&(*tenant, *event))).collect();
        let distinct: BTreeSet<Match> = found.iter().cloned().collect();
        assert_eq!(distinct.len(), found.len(), "a match is stored once");
        let missing: Vec<_> = expected.difference(&distinct).collect();
        let extra: Vec<_> = distinct.difference(&expected).collect();
        assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}, extra {extra:#?}");
        found.len()
    }
}

/// Whether this is a Windows event of a shape the scan reads.
pub fn covers(line: &[u8]) -> bool {
    let shapes = ["\"fmt\":\"winlog-nxlog\"", "\"fmt\":\"winlog-wef\"", "\"fmt\":\"evtx-json\""];
    let start = String::from_utf8_lossy(&line[..line.len().min(400)]);
    shapes.iter().any(|shape| start.contains(shape))
}
