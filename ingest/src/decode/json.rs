//! JSON text to a tape, without allocating per message.

use std::borrow::Cow;

use inosec_schemas::Reason;
use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, Tape, fill_tape_padded};

use super::{Reject, repair};

/// What a message's value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// A JSON object.
    Json,
    /// Something else: a line of text, perhaps.
    Text,
}

/// How a value is written.
pub(crate) fn written(value: &[u8]) -> Result<Written, Reject> {
    match value.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Ok(Written::Json),
        Some(b'[') => Err(Reject::new(Reason::BadJson, "an array: one event is one message")),
        Some(_) => Ok(Written::Text),
        None => Err(Reject::new(Reason::BadJson, "the value is empty")),
    }
}

/// The parser's buffers: see [`with_tape`].
pub(crate) struct Parser {
    buffers: Buffers,
    /// The copy that simd-json unescapes in place, and the padding it wants behind it.
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Parser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parser")
    }
}

impl Parser {
    /// A parser that refuses to nest deeper.
    pub(crate) fn new(max_depth: usize) -> Self {
        Self { buffers: Buffers::with_max_depth(8 << 10, max_depth), scratch: Vec::new() }
    }

    /// Takes a copy of the text.
    fn load(&mut self, text: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(text);
        self.scratch.resize(text.len() + INPUT_PADDING, b' ');
    }

    /// Parses the copy; the tape's texts lie in it.
    fn parse<'a>(&'a mut self, tape: &mut Tape<'a>) -> Result<(), simd_json::Error> {
        let length = self.scratch.len() - INPUT_PADDING;
        fill_tape_padded(&mut self.scratch, length, &mut self.buffers, tape)
    }
}

/// Parses a text, mended if simd-json can't hold it as it is, and gives its tape to `then`. The tape's
/// memory is kept for the next.
pub(crate) fn with_tape<T>(
    parser: &mut Parser,
    kept: &mut Tape<'static>,
    text: &[u8],
    then: impl FnOnce(&[Node<'_>]) -> T,
) -> Result<T, Reject> {
    let mut written = Cow::Borrowed(text);
    loop {
        parser.load(&written);
        let mut tape = std::mem::replace(kept, Tape(Vec::new())).reset();
        let error = match parser.parse(&mut tape) {
            Ok(()) => {
                let done = then(&tape.0);
                *kept = tape.reset();
                return Ok(done);
            }
            Err(error) => error,
        };
        *kept = tape.reset();
        let repaired = matches!(written, Cow::Owned(_));
        if repaired || !may_be_repaired(&error) {
            return Err(reject(&error, text));
        }
        written = Cow::Owned(repair::repair(text));
    }
}

/// Whether the text could be sound JSON that simd-json can't hold.
fn may_be_repaired(error: &simd_json::Error) -> bool {
    !matches!(error.error(), ErrorType::DepthLimitExceeded | ErrorType::InvalidUtf8)
}

/// What a parse error makes of the message.
fn reject(error: &simd_json::Error, text: &[u8]) -> Reject {
    match error.error() {
        ErrorType::DepthLimitExceeded => Reject::new(Reason::TooDeep, "nested deeper than is allowed"),
        _ if std::str::from_utf8(text).is_err() => Reject::new(Reason::BadUtf8, "bytes that are not UTF-8"),
        error => Reject::new(Reason::BadJson, format!("not JSON: {error:?}")),
    }
}
