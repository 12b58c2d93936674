//! Which formats a record could be: a bit for each thing that any condition asks.

use inosec_schemas::{Condition, Path};

use super::names::{ByName, Hit, Names};
use super::record::{Record, Value};

/// One bit per distinct thing conditions ask.
pub(crate) type Marks = [u64; 4];

/// A compiled condition.
#[derive(Debug, Clone)]
pub(crate) struct Needs {
    all: Marks,
    any: Marks,
    none: Marks,
}

impl Needs {
    pub(crate) fn met_by(&self, marks: &Marks) -> bool {
        let has = |wanted: &Marks| wanted.iter().zip(marks).any(|(wanted, marks)| wanted & marks != 0);
        let has_all = self.all.iter().zip(marks).all(|(wanted, marks)| wanted & marks == *wanted);
        has_all && (self.any == [0; 4] || has(&self.any)) && !has(&self.none)
    }
}

/// What sets a bit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Question {
    /// The member is there and not null.
    Present(Path),
    /// One of them is one of these texts.
    Equals(Vec<Path>, Vec<String>),
}

/// The questions of a stream's formats, being collected.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    asked: Vec<Question>,
    by_name: Vec<(u32, u8)>,
}

impl Questions {
    /// Compiles a condition.
    ///
    /// # Panics
    /// If all formats of a stream together ask more than 256 different things.
    pub(crate) fn needs(&mut self, condition: &Condition, names: &mut Names) -> Needs {
        let mut needs = Needs { all: [0; 4], any: [0; 4], none: [0; 4] };
        for path in &condition.all {
            self.ask(Question::Present(path.clone()), &mut needs.all, names);
        }
        for path in &condition.any {
            self.ask(Question::Present(path.clone()), &mut needs.any, names);
        }
        for path in &condition.none {
            self.ask(Question::Present(path.clone()), &mut needs.none, names);
        }
        for (paths, texts) in &condition.equals {
            let paths = paths.split('|').map(|path| Path::from(path.to_owned())).collect();
            self.ask(Question::Equals(paths, texts.clone()), &mut needs.all, names);
        }
        needs
    }

    fn ask(&mut self, question: Question, marks: &mut Marks, names: &mut Names) {
        let known = self.asked.iter().position(|known| *known == question);
        let bit = known.unwrap_or_else(|| {
            let bit = u8::try_from(self.asked.len()).expect("formats ask at most 256 different things");
            let paths = match &question {
                Question::Present(path) => std::slice::from_ref(path),
                Question::Equals(paths, _) => paths,
            };
            for path in paths {
                self.by_name.extend(names.ask(path).map(|name| (name, bit)));
            }
            self.asked.push(question);
            bit.into()
        });
        marks[bit / 64] |= 1 << (bit % 64);
    }

    /// Ready to be asked.
    pub(crate) fn compiled(self) -> Recogniser {
        Recogniser { questions: self.asked, bits: ByName::new(self.by_name) }
    }
}

/// All questions of a stream's formats.
#[derive(Debug)]
pub(crate) struct Recogniser {
    questions: Vec<Question>,
    bits: ByName<u8>,
}

impl Recogniser {
    /// The answers for a record.
    pub(crate) fn marks(&self, record: &Record<'_>, hits: &[Hit]) -> Marks {
        let mut marks = [0; 4];
        for hit in hits {
            for bit in self.bits.of(hit.name) {
                let bit = usize::from(*bit);
                let yes = match &self.questions[bit] {
                    Question::Present(_) => record.value(hit.at) != Value::Null,
                    Question::Equals(_, texts) => texts.iter().any(|text| is(record.value(hit.at), text)),
                };
                marks[bit / 64] |= u64::from(yes) << (bit % 64);
            }
        }
        marks
    }
}

fn is(value: Value<'_>, text: &str) -> bool {
    match value {
        Value::Text(value) => value == text,
        Value::Bool(value) => text == if value { "true" } else { "false" },
        Value::Int(value) => text.parse() == Ok(value),
        Value::Uint(value) => text.parse() == Ok(value),
        Value::Null | Value::Float(_) | Value::Nested(_) => false,
    }
}
