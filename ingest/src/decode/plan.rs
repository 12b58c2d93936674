//! Formats compiled for one stream: where each column's value comes from, as tries of member names.

use hashbrown::HashMap;
use inosec_schemas::{Catalog, Column, Fill, Format, Kind, Mapping, Path, Reason, Shape, Source, Stream};

use super::recognise::{Marks, Needs, Recogniser};
use super::{DETECTIONS, Reject};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Where a path ends: a slot of the plan and the path's rank there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) slot: u16,
    pub(crate) rank: u16,
}

/// Paths by their member names.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    branches: Vec<Branch>,
}

#[derive(Debug, Default)]
struct Branch {
    children: Map<Box<str>, usize>,
    targets: Vec<Target>,
}

impl Trie {
    pub(crate) const ROOT: usize = 0;

    pub(crate) fn child(&self, branch: usize, name: &str) -> Option<usize> {
        self.branches.get(branch)?.children.get(name).copied()
    }

    pub(crate) fn targets(&self, branch: usize) -> &[Target] {
        &self.branches[branch].targets
    }

    pub(crate) fn has_children(&self, branch: usize) -> bool {
        !self.branches[branch].children.is_empty()
    }

    /// Adds a path twice: member by member, and with the next rank as one dotted name at the root.
    pub(crate) fn insert(&mut self, path: &Path, slot: u16, rank: u16) {
        self.add(path.0.iter().map(String::as_str), Target { slot, rank: rank * 2 });
        if path.0.len() > 1 {
            self.add(std::iter::once(path.to_string().as_str()), Target { slot, rank: rank * 2 + 1 });
        }
    }

    fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>, target: Target) {
        if self.branches.is_empty() {
            self.branches.push(Branch::default());
        }
        let mut branch = Self::ROOT;
        for name in names {
            let next = self.branches.len();
            let child = *self.branches[branch].children.entry(name.into()).or_insert(next);
            if child == next {
                self.branches.push(Branch::default());
            }
            branch = child;
        }
        self.branches[branch].targets.push(target);
    }
}

/// How one column of a row is made.
#[derive(Debug)]
pub(crate) enum Make {
    /// By the road, not the message.
    Fill(Fill),
    /// From a slot.
    Slot(u16),
    /// From a table, keyed by the slots' values.
    Lookup { slots: Vec<u16>, map: Map<Box<str>, Box<str>>, default: Option<Box<str>> },
    /// The format says nothing of it.
    Nothing,
}

/// One format's way to one stream.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) trie: Trie,
    pub(crate) slots: usize,
    /// One per column of the stream.
    pub(crate) makes: Vec<Make>,
    /// Where the event's time comes from, if the format says.
    pub(crate) time: Option<u16>,
    /// Which records it is for; `None`: all.
    pub(crate) when: Option<Needs>,
}

/// A format as one stream sees it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) shape: Shape,
    needs: Option<Needs>,
    pub(crate) plan: Plan,
    /// What records that are detections add.
    pub(crate) detection: Option<Plan>,
}

/// All formats that feed a stream.
#[derive(Debug)]
pub(crate) struct Plans {
    pub(crate) recogniser: Recogniser,
    /// In the order they are asked.
    pub(crate) formats: Vec<Known>,
    /// Those of text lines, by place.
    pub(crate) texts: Vec<usize>,
    /// Whether any plan asks for more than the format.
    pub(crate) any_conditions: bool,
    names: Map<String, usize>,
}

/// The plans chosen for a record.
pub(crate) struct Chosen<'p> {
    pub(crate) format: &'p Known,
    pub(crate) detection: Option<&'p Plan>,
}

impl Plans {
    pub(crate) fn compile(catalog: &Catalog, stream: &Stream) -> Self {
        let mut recogniser = Recogniser::default();
        let mut formats: Vec<Known> = Vec::new();
        for format in &catalog.formats {
            if let Some(mapping) = format.streams.get(&stream.name) {
                formats.push(Known::compile(catalog, stream, format, mapping, &mut recogniser));
            }
        }
        if formats.is_empty() {
            formats.push(Known::by_column_names(stream));
        }
        let mut names = Map::default();
        for (place, format) in formats.iter().enumerate() {
            for name in std::iter::once(&format.name).chain(&format.aliases) {
                names.insert(name.clone(), place);
            }
        }
        let texts = (0..formats.len()).filter(|place| formats[*place].shape != Shape::Json).collect();
        let conditional = |format: &Known| format.plan.when.is_some() || format.detection.is_some();
        let any_conditions = formats.iter().any(conditional);
        Self { recogniser, formats, texts, any_conditions, names }
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Known> {
        self.names.get(name).map(|place| &self.formats[*place])
    }

    /// The first format whose needs the record meets.
    pub(crate) fn recognised(&self, marks: &Marks) -> Option<&Known> {
        self.formats
            .iter()
            .filter(|format| format.shape == Shape::Json)
            .find(|format| format.needs.as_ref().is_none_or(|needs| needs.met_by(marks)))
    }

    /// Checks what a chosen format's plans ask besides.
    pub(crate) fn chosen<'p>(
        &'p self,
        format: Option<&'p Known>,
        marks: &Marks,
    ) -> Result<Chosen<'p>, Reject> {
        let unknown =
            || Reject::new(Reason::UnknownFormat, "no format that feeds this stream fits the record");
        let format = format.ok_or_else(unknown)?;
        if format.plan.when.as_ref().is_some_and(|when| !when.met_by(marks)) {
            return Err(Reject::new(
                Reason::UnknownFormat,
                format!("{} has no row for this stream in it", format.name),
            ));
        }
        let asked = |plan: &&Plan| plan.when.as_ref().is_some_and(|when| when.met_by(marks));
        Ok(Chosen { format, detection: format.detection.as_ref().filter(asked) })
    }
}

impl Known {
    fn compile(
        catalog: &Catalog,
        stream: &Stream,
        format: &Format,
        mapping: &Mapping,
        recogniser: &mut Recogniser,
    ) -> Self {
        let detections = catalog.streams.get(DETECTIONS).filter(|_| stream.name != DETECTIONS);
        let detection = detections.and_then(|detections| {
            let mapping = format.streams.get(DETECTIONS)?;
            let plan = Plan::compile(detections, mapping, recogniser);
            plan.when.is_some().then_some(plan)
        });
        Self {
            name: format.name.clone(),
            aliases: format.aliases.clone(),
            shape: format.shape,
            needs: format.recognise.as_ref().map(|condition| recogniser.needs(condition)),
            plan: Plan::compile(stream, mapping, recogniser),
            detection,
        }
    }

    /// A stream no format speaks of: members are called as columns are.
    fn by_column_names(stream: &Stream) -> Self {
        let told = |fill| matches!(fill, Fill::Message | Fill::Id | Fill::EventTime | Fill::Source);
        let mut columns = std::collections::BTreeMap::new();
        for column in stream.columns.iter().filter(|column| told(column.fill)) {
            columns.insert(column.name.clone(), Source::First(vec![Path(vec![column.name.clone()])]));
        }
        if stream.filled_by(Fill::EventTime).is_none() {
            let name = stream.columns[stream.ts].name.clone();
            columns.insert(name.clone(), Source::First(vec![Path(vec![name])]));
        }
        let mapping = Mapping { when: inosec_schemas::Condition::default(), columns };
        Self {
            name: "json".to_owned(),
            aliases: Vec::new(),
            shape: Shape::Json,
            needs: None,
            plan: Plan::compile(stream, &mapping, &mut Recogniser::default()),
            detection: None,
        }
    }
}

impl Plan {
    fn compile(stream: &Stream, mapping: &Mapping, recogniser: &mut Recogniser) -> Self {
        let when =
            (mapping.when != inosec_schemas::Condition::default()).then(|| recogniser.needs(&mapping.when));
        let mut plan = Self { trie: Trie::default(), slots: 0, makes: Vec::new(), time: None, when };
        let time = stream.filled_by(Fill::EventTime).unwrap_or(stream.ts);
        for (position, column) in stream.columns.iter().enumerate() {
            let source = mapping.columns.get(&column.name);
            if position == time {
                plan.time = match source {
                    Some(Source::First(paths)) => Some(plan.slot(paths)),
                    _ => None,
                };
                plan.makes.push(Make::Fill(column.fill));
                continue;
            }
            let make = match (column.fill, source) {
                (Fill::Message | Fill::Id | Fill::Source, Some(Source::First(paths))) => {
                    Make::Slot(plan.slot(paths))
                }
                (Fill::Message | Fill::Id | Fill::Source, Some(Source::Lookup { key, map, default })) => {
                    Make::Lookup {
                        slots: key.iter().map(|paths| plan.slot(paths)).collect(),
                        map: map
                            .iter()
                            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
                            .collect(),
                        default: default.as_deref().map(Into::into),
                    }
                }
                (Fill::Message, None) => Make::Nothing,
                (fill, _) => Make::Fill(fill),
            };
            plan.makes.push(make);
        }
        plan
    }

    fn slot(&mut self, paths: &[Path]) -> u16 {
        let slot = u16::try_from(self.slots).expect("a plan has fewer than 65,536 slots");
        for (rank, path) in (0..).zip(paths) {
            self.trie.insert(path, slot, rank);
        }
        self.slots += 1;
        slot
    }
}

/// What a column holds when a required one is left out: OCSF's "unknown" and "base event".
pub(crate) fn unknown(kind: Kind, name: &str) -> Option<i64> {
    (matches!(name, "class_uid" | "severity_id") && matches!(kind, Kind::Int16 | Kind::Int32)).then_some(0)
}

/// Appends an integer to a column of either width.
pub(crate) fn push_integer(column: &mut Column, value: i64) {
    match column {
        Column::Int16(values) => values.push(i16::try_from(value).ok()),
        Column::Int32(values) => values.push(i32::try_from(value).ok()),
        Column::Int64(values) => values.push(Some(value)),
        other => unreachable!("not an integer column: {other:?}"),
    }
}
