//! Formats compiled for one stream: where each column's value comes from.

use hashbrown::HashMap;
use inosec_schemas::{
    Catalog, Column, ColumnSpec, Fill, Format, Kind, Mapping, Path, Reason, Shape, Source, Stream,
};

use super::names::{ByName, Names};
use super::recognise::{Marks, Needs, Questions, Recogniser};
use super::{DETECTIONS, Reject};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Where a path ends: a slot of the plan and the path's rank there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) slot: u16,
    pub(crate) rank: u16,
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
    /// A JSON object of the slots' values.
    Members(Vec<(Box<str>, u16)>),
    /// An id made of the slots' values.
    Id(Vec<u16>),
    /// The format says nothing of it.
    Nothing,
}

/// What a column holds when the message has no value for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Null.
    Null,
    /// The envelope's host, or null.
    Host,
    /// What the road knows.
    Fill(Fill),
    /// OCSF's "unknown" or "base event".
    Unknown,
    /// Nothing: the message is rejected.
    Reject,
}

impl Absent {
    fn of(column: &ColumnSpec) -> Self {
        match column.fill {
            Fill::Message if column.name == "host_name" && column.kind == Kind::Text && !column.required => {
                Self::Host
            }
            Fill::Message if is_vocabulary(column) => Self::Unknown,
            Fill::Message if column.required => Self::Reject,
            Fill::Message => Self::Null,
            fill => Self::Fill(fill),
        }
    }
}

/// One format's way to one stream.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) targets: ByName<Target>,
    pub(crate) slots: usize,
    /// The columns to be made, by position; the others stay null.
    pub(crate) makes: Vec<(usize, Make, Absent)>,
    /// The column made last: the row's own id, for which other columns are needed.
    pub(crate) id: Option<usize>,
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
    by_name: Map<String, usize>,
}

/// The plans chosen for a record.
pub(crate) struct Chosen<'p> {
    pub(crate) format: &'p Known,
    pub(crate) detection: Option<&'p Plan>,
}

impl Plans {
    /// `names` learns what members to look for.
    pub(crate) fn compile(catalog: &Catalog, stream: &Stream, names: &mut Names) -> Self {
        let mut recogniser = Questions::default();
        let mut formats: Vec<Known> = Vec::new();
        for format in &catalog.formats {
            if let Some(mapping) = format.streams.get(&stream.name) {
                formats.push(Known::compile(catalog, stream, format, mapping, &mut recogniser, names));
            }
        }
        if formats.is_empty() {
            formats.push(Known::by_column_names(stream, names));
        }
        let mut by_name = Map::default();
        for (place, format) in formats.iter().enumerate() {
            for name in std::iter::once(&format.name).chain(&format.aliases) {
                by_name.insert(name.clone(), place);
            }
        }
        let texts = (0..formats.len()).filter(|place| formats[*place].shape != Shape::Json).collect();
        let conditional = |format: &Known| format.plan.when.is_some() || format.detection.is_some();
        let any_conditions = formats.iter().any(conditional);
        Self { recogniser: recogniser.compiled(), formats, texts, any_conditions, by_name }
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Known> {
        self.by_name.get(name).map(|place| &self.formats[*place])
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
        recogniser: &mut Questions,
        names: &mut Names,
    ) -> Self {
        let detections = catalog.streams.get(DETECTIONS).filter(|_| stream.name != DETECTIONS);
        let detection = detections.and_then(|detections| {
            let mapping = format.streams.get(DETECTIONS)?;
            let plan = Plan::compile(detections, mapping, recogniser, names);
            plan.when.is_some().then_some(plan)
        });
        Self {
            name: format.name.clone(),
            aliases: format.aliases.clone(),
            shape: format.shape,
            needs: format.recognise.as_ref().map(|condition| recogniser.needs(condition, names)),
            plan: Plan::compile(stream, mapping, recogniser, names),
            detection,
        }
    }

    /// A stream no format speaks of: members are called as columns are.
    fn by_column_names(stream: &Stream, names: &mut Names) -> Self {
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
            plan: Plan::compile(stream, &mapping, &mut Questions::default(), names),
            detection: None,
        }
    }
}

impl Plan {
    fn compile(stream: &Stream, mapping: &Mapping, questions: &mut Questions, names: &mut Names) -> Self {
        let when = (mapping.when != inosec_schemas::Condition::default())
            .then(|| questions.needs(&mapping.when, names));
        let mut slots = Slots { names, targets: Vec::new(), count: 0 };
        let (mut makes, mut time) = (Vec::new(), None);
        let event_time = stream.filled_by(Fill::EventTime).unwrap_or(stream.ts);
        for (position, column) in stream.columns.iter().enumerate() {
            let source = mapping.columns.get(&column.name);
            if position == event_time {
                if let Some(Source::First(paths)) = source {
                    time = Some(slots.add(paths));
                }
                makes.push((position, Make::Fill(column.fill), Absent::Null));
                continue;
            }
            let make = match (column.fill, source) {
                (Fill::Message | Fill::Id | Fill::Source, Some(source)) => slots.make(source),
                (Fill::Message, None) => Make::Nothing,
                (fill, _) => Make::Fill(fill),
            };
            let absent = Absent::of(column);
            if !matches!((&make, absent), (Make::Nothing, Absent::Null)) {
                makes.push((position, make, absent));
            }
        }
        let id = stream.filled_by(Fill::Id);
        Self { targets: ByName::new(slots.targets), slots: slots.count.into(), makes, id, time, when }
    }
}

/// The slots of a plan in the making.
struct Slots<'a> {
    names: &'a mut Names,
    targets: Vec<(u32, Target)>,
    count: u16,
}

impl Slots<'_> {
    fn make(&mut self, source: &Source) -> Make {
        match source {
            Source::First(paths) => Make::Slot(self.add(paths)),
            Source::Lookup { key, map, default } => Make::Lookup {
                slots: key.iter().map(|paths| self.add(paths)).collect(),
                map: map.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
                default: default.as_deref().map(Into::into),
            },
            Source::Members(members) => Make::Members(
                members.iter().map(|(name, paths)| (name.as_str().into(), self.add(paths))).collect(),
            ),
            Source::Id(parts) => Make::Id(parts.iter().map(|paths| self.add(paths)).collect()),
        }
    }

    fn add(&mut self, paths: &[Path]) -> u16 {
        let slot = self.count;
        let names = paths.iter().flat_map(|path| self.names.ask(path).collect::<Vec<_>>());
        self.targets.extend((0..).zip(names).map(|(rank, name)| (name, Target { slot, rank })));
        self.count += 1;
        slot
    }
}

/// Whether a column can say "unknown": OCSF's classes and severities have 0 for it.
pub(crate) fn is_vocabulary(column: &ColumnSpec) -> bool {
    matches!(column.name.as_str(), "class_uid" | "severity_id")
        && matches!(column.kind, Kind::Int16 | Kind::Int32)
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
