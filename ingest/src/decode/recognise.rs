//! Which formats a record could be: one walk sets a bit for each member any condition asks for.

use inosec_schemas::{Condition, Path};

use super::plan::Trie;
use super::record::{Json, Value, Walk as _};

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
    /// It is one of these texts.
    Equals(Path, Vec<String>),
}

/// All questions of a stream's formats.
#[derive(Debug, Default)]
pub(crate) struct Recogniser {
    questions: Vec<Question>,
    trie: Trie,
}

impl Recogniser {
    /// Compiles a condition.
    ///
    /// # Panics
    /// If all formats of a stream together ask more than 256 different things.
    pub(crate) fn needs(&mut self, condition: &Condition) -> Needs {
        let mut needs = Needs { all: [0; 4], any: [0; 4], none: [0; 4] };
        for path in &condition.all {
            self.ask(Question::Present(path.clone()), &mut needs.all);
        }
        for path in &condition.any {
            self.ask(Question::Present(path.clone()), &mut needs.any);
        }
        for path in &condition.none {
            self.ask(Question::Present(path.clone()), &mut needs.none);
        }
        for (path, texts) in &condition.equals {
            self.ask(Question::Equals(Path::from(path.clone()), texts.clone()), &mut needs.all);
        }
        needs
    }

    fn ask(&mut self, question: Question, marks: &mut Marks) {
        let known = self.questions.iter().position(|known| *known == question);
        let bit = known.unwrap_or_else(|| {
            let bit = self.questions.len();
            assert!(bit < 256, "a stream's formats ask more than 256 different things");
            let (Question::Present(path) | Question::Equals(path, _)) = &question;
            self.trie.insert(path, bit as u16, 0);
            self.questions.push(question);
            bit
        });
        marks[bit / 64] |= 1 << (bit % 64);
    }

    /// The answers for a record.
    pub(crate) fn marks(&self, record: &Json<'_>) -> Marks {
        let mut marks = [0; 4];
        if self.questions.is_empty() {
            return marks;
        }
        record.walk(&self.trie, &mut |target, at| {
            let bit = usize::from(target.slot);
            let yes = match &self.questions[bit] {
                Question::Present(_) => record.value(at) != Value::Null,
                Question::Equals(_, texts) => texts.iter().any(|text| is(record.value(at), text)),
            };
            if yes {
                marks[bit / 64] |= 1 << (bit % 64);
            }
        });
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
