//! Reading a message: its bytes to an envelope, and to a record whose format is known.

use inosec_schemas::Reason;
use simd_json::{Node, Tape};

use super::envelope::{self, Envelope};
use super::json::{self, Parser, Written};
use super::names::{Hit, Names};
use super::plan::{Chosen, Plans};
use super::record::{Fields, Record};
use super::{Limits, Reject};

/// The buffers that reading takes.
#[derive(Debug)]
pub(crate) struct Reader {
    limits: Limits,
    parser: Parser,
    tape: Tape<'static>,
    hits: Vec<Hit>,
}

/// A message that could be parsed.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) envelope: Envelope<'a>,
    /// The tape the envelope lies on; empty for a bare line.
    pub(crate) tape: &'a [Node<'a>],
    /// The record's members that formats ask for, once it is recognised.
    pub(crate) hits: &'a mut Vec<Hit>,
}

impl Reader {
    pub(crate) fn new(limits: Limits) -> Self {
        let parser = Parser::new(limits.max_depth);
        Self { limits, parser, tape: Tape(Vec::new()), hits: Vec::new() }
    }

    /// Parses a message and gives it to `then`.
    pub(crate) fn open<T>(
        &mut self,
        value: &[u8],
        then: impl FnOnce(Opened<'_>) -> Result<T, Reject>,
    ) -> Result<T, Reject> {
        let allowed = self.limits.max_message_bytes;
        if value.len() > allowed {
            let detail = format!("{} bytes, {allowed} are allowed", value.len());
            return Err(Reject::new(Reason::TooLarge, detail));
        }
        let Self { parser, tape, hits, .. } = self;
        hits.clear();
        if json::written(value)? == Written::Text {
            return then(Opened { envelope: Envelope::of_text(value)?, tape: &[], hits });
        }
        json::with_tape(parser, tape, value, |tape| {
            then(Opened { envelope: Envelope::of_json(tape), tape, hits })
        })?
    }
}

impl<'a> Opened<'a> {
    /// The record, and its format: as told by a header or the envelope, else as recognised.
    pub(crate) fn recognise<'r, 'p>(
        &mut self,
        header: Option<&str>,
        plans: &'p Plans,
        names: &mut Names,
        fields: &'r mut Fields<'a>,
    ) -> Result<(Chosen<'p>, Record<'r>), Reject> {
        let told = header.or(self.envelope.format);
        match self.envelope.record {
            envelope::Record::Json(root) => {
                names.walk(self.tape, root, self.hits);
                let record = Record::Json(self.tape);
                Ok((plans.choose_json(told, &record, self.hits)?, record))
            }
            envelope::Record::Text(text) => {
                let chosen = plans.choose_text(told, text, fields)?;
                fields.walk(names, self.hits);
                Ok((chosen, Record::Text(fields)))
            }
        }
    }
}
