//! Rows to PostgreSQL's binary COPY format.
//!
//! Ours because the driver's writer flushes every 4 KiB and dispatches each value dynamically, which
//! costs as much again as the encoding. Frames of 64 KiB and more pass through the driver uncopied.

use std::net::IpAddr;

use bytes::Bytes;
use inosec_schemas::{Column, Rows, Slice};
use uuid::Uuid;

/// Frames are handed over once they hold this much.
const FRAME: usize = 128 << 10;
/// 2000-01-01 in microseconds since 1970: PostgreSQL's epoch.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
/// Oid of `text`.
const TEXT: i32 = 25;
/// PostgreSQL's address families.
const INET: u8 = 2;
const INET6: u8 = 3;

/// Bytes of one COPY, cut anywhere.
pub type Frames = Vec<Bytes>;

/// Writes tuples.
pub(crate) struct CopyWriter {
    done: Frames,
    frame: Vec<u8>,
    tuples: usize,
}

impl CopyWriter {
    /// Starts a COPY: signature, no flags, no extension.
    pub(crate) fn new() -> Self {
        let mut frame = Vec::with_capacity(FRAME + (FRAME >> 3));
        frame.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        frame.extend_from_slice(&[0; 8]);
        Self { done: Vec::new(), frame, tuples: 0 }
    }

    /// Starts a tuple of this many fields.
    pub(crate) fn tuple(&mut self, fields: usize) {
        if self.frame.len() >= FRAME {
            let next = Vec::with_capacity(FRAME + (FRAME >> 3));
            self.done.push(std::mem::replace(&mut self.frame, next).into());
        }
        self.tuples += 1;
        let fields = i16::try_from(fields).expect("a table has fewer than 1,600 columns");
        self.frame.extend_from_slice(&fields.to_be_bytes());
    }

    pub(crate) fn null(&mut self) {
        self.frame.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.frame.extend_from_slice(value);
    }

    pub(crate) fn int32(&mut self, value: i32) {
        self.fixed(value.to_be_bytes());
    }

    pub(crate) fn int64(&mut self, value: i64) {
        self.fixed(value.to_be_bytes());
    }

    pub(crate) fn uuid(&mut self, value: Uuid) {
        self.fixed(*value.as_bytes());
    }

    /// A time in microseconds since 1970.
    pub(crate) fn timestamp(&mut self, micros: i64) {
        self.int64(micros.saturating_sub(POSTGRES_EPOCH));
    }

    /// The frames of the COPY with its trailer; none if there was no tuple.
    pub(crate) fn finish(mut self) -> Frames {
        if self.tuples == 0 {
            return Vec::new();
        }
        self.frame.extend_from_slice(&(-1_i16).to_be_bytes());
        self.done.push(self.frame.into());
        self.done
    }

    /// A value of known size: its length and itself in one write.
    fn fixed<const SIZE: usize>(&mut self, value: [u8; SIZE]) {
        self.length(SIZE);
        self.frame.extend_from_slice(&value);
    }

    fn length(&mut self, length: usize) {
        let length = i32::try_from(length).expect("a field is smaller than 2 GiB");
        self.frame.extend_from_slice(&length.to_be_bytes());
    }

    fn inet(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.length(8);
                self.frame.extend_from_slice(&[INET, 32, 0, 4]);
                self.frame.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                self.length(20);
                self.frame.extend_from_slice(&[INET6, 128, 0, 16]);
                self.frame.extend_from_slice(&address.octets());
            }
        }
    }

    fn json(&mut self, text: &[u8]) {
        self.length(text.len() + 1);
        self.frame.push(1);
        self.frame.extend_from_slice(text);
    }

    /// `items` are each ended by NUL.
    fn text_list(&mut self, items: &[u8]) {
        let count = items.iter().filter(|byte| **byte == 0).count();
        let start = self.frame.len();
        self.length(0);
        let dimensions = i32::from(count > 0);
        for word in [dimensions, 0, TEXT] {
            self.frame.extend_from_slice(&word.to_be_bytes());
        }
        if count > 0 {
            let count = i32::try_from(count).expect("a list is shorter than its bytes");
            self.frame.extend_from_slice(&count.to_be_bytes());
            self.frame.extend_from_slice(&1_i32.to_be_bytes());
            for item in items.split(|byte| *byte == 0).take(count.unsigned_abs() as usize) {
                self.bytes(item);
            }
        }
        let length = i32::try_from(self.frame.len() - start - 4).expect("a list is smaller than 2 GiB");
        self.frame[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// All columns of one row. `seq` fills the column of that fill.
    fn row(&mut self, rows: &Rows, row: usize, seq: (Option<usize>, i64)) {
        self.tuple(rows.columns.len());
        for (position, column) in rows.columns.iter().enumerate() {
            if seq.0 == Some(position) {
                self.int64(seq.1);
                continue;
            }
            match column {
                Column::Bool(values) => self.optional(values[row], |to, value| to.fixed([u8::from(value)])),
                Column::Int16(values) => {
                    self.optional(values[row], |to, value| to.fixed(value.to_be_bytes()));
                }
                Column::Int32(values) => self.optional(values[row], Self::int32),
                Column::Int64(values) => self.optional(values[row], Self::int64),
                Column::Float64(values) => {
                    self.optional(values[row], |to, value| to.fixed(value.to_be_bytes()));
                }
                Column::Timestamp(values) => self.optional(values[row], Self::timestamp),
                Column::Uuid(values) => self.optional(values[row], Self::uuid),
                Column::Inet(values) => self.optional(values[row], Self::inet),
                Column::Text(values) | Column::Bytes(values) => self.slice(rows, values[row], Self::bytes),
                Column::Json(values) => self.slice(rows, values[row], Self::json),
                Column::TextList(values) => self.slice(rows, values[row], Self::text_list),
            }
        }
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    fn slice(&mut self, rows: &Rows, slice: Option<Slice>, write: impl FnOnce(&mut Self, &[u8])) {
        self.optional(slice, |to, slice| write(to, rows.slice(slice)));
    }
}

/// The COPY of these rows, in this order, each with its `seq`.
pub(crate) fn encode_rows(rows: &Rows, places: impl IntoIterator<Item = (usize, i64)>) -> Frames {
    let seq = rows.filled_by(inosec_schemas::Fill::Seq);
    let mut writer = CopyWriter::new();
    for (row, number) in places {
        writer.row(rows, row, (seq, number));
    }
    writer.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use inosec_schemas::{Kind, Stream};

    use super::*;

    /// A reader of binary COPY of its own: the raw fields of each tuple.
    pub(crate) fn read(frames: &[Bytes]) -> Vec<Vec<Option<Vec<u8>>>> {
        let all = frames.concat();
        assert_eq!(&all[..19], b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        let mut at = 19;
        let mut take = |length: usize| {
            at += length;
            all[at - length..at].to_vec()
        };
        let mut tuples = Vec::new();
        loop {
            let fields = i16::from_be_bytes(take(2).try_into().unwrap());
            if fields == -1 {
                return tuples;
            }
            let mut field = || match i32::from_be_bytes(take(4).try_into().unwrap()) {
                -1 => None,
                length => Some(take(length.unsigned_abs() as usize)),
            };
            tuples.push((0..fields).map(|_| field()).collect());
        }
    }

    fn stream() -> Arc<Stream> {
        let kinds = "bool int16 int32 int64 float64 inet text json text_list bytes";
        let column =
            |kind: &str| format!("[[columns]]\nname = \"c_{kind}\"\nkind = \"{kind}\"\ndescription = \"\"\n");
        let text = format!(
            "name = \"t\"\ndescription = \"\"\n[[columns]]\nname = \"ts\"\nkind = \"timestamp\"\nfill = \"ts\"\ndescription = \"\"\n\
             [[columns]]\nname = \"tenant_id\"\nkind = \"uuid\"\nfill = \"tenant\"\ndescription = \"\"\n\
             [[columns]]\nname = \"seq\"\nkind = \"int64\"\nfill = \"seq\"\ndescription = \"\"\n{}",
            kinds.split(' ').map(column).collect::<String>()
        );
        Arc::new(Stream::parse("t.toml", &text).unwrap())
    }

    fn full_row(stream: &Arc<Stream>) -> Rows {
        let mut all = Rows::new(Arc::clone(stream));
        let texts =
            ["a text", "{\"a\":1}", "one\0two\0", "\x01\x02"].map(|text| all.push_text(text.as_bytes()));
        for (column, spec) in all.columns.iter_mut().zip(&stream.columns) {
            *column = match spec.kind {
                Kind::Bool => Column::Bool(vec![Some(true)]),
                Kind::Int16 => Column::Int16(vec![Some(-2)]),
                Kind::Int32 => Column::Int32(vec![Some(70_000)]),
                Kind::Int64 => Column::Int64(vec![Some(i64::MIN)]),
                Kind::Float64 => Column::Float64(vec![Some(1.5)]),
                Kind::Timestamp => Column::Timestamp(vec![Some(946_684_800_000_001)]),
                Kind::Uuid => Column::Uuid(vec![Some(uuid::Uuid::from_u128(7))]),
                Kind::Inet => Column::Inet(vec![Some("10.1.2.3".parse().unwrap())]),
                Kind::Text => Column::Text(vec![Some(texts[0])]),
                Kind::Json => Column::Json(vec![Some(texts[1])]),
                Kind::TextList => Column::TextList(vec![Some(texts[2])]),
                Kind::Bytes => Column::Bytes(vec![Some(texts[3])]),
            };
        }
        all.message.push(0);
        all
    }

    #[test]
    fn every_kind_has_the_documented_layout() {
        let stream = stream();
        let all = full_row(&stream);
        let tuples = read(&encode_rows(&all, [(0, 42)]));
        let expected: Vec<&[u8]> = vec![
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 0, 0, 0, 0, 42],
            &[1],
            &[0xff, 0xfe],
            &[0, 1, 0x11, 0x70],
            &[0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
            &[2, 32, 0, 4, 10, 1, 2, 3],
            b"a text",
            b"\x01{\"a\":1}",
            b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x02\0\0\0\x01\0\0\0\x03one\0\0\0\x03two",
            &[1, 2],
        ];
        let found: Vec<&[u8]> = tuples[0].iter().map(|field| field.as_deref().unwrap()).collect();
        assert_eq!(found, expected);
        for (field, spec) in tuples[0].iter().zip(&stream.columns) {
            if let inosec_schemas::Layout::Fixed(size) = spec.kind.copy_layout() {
                assert_eq!(field.as_ref().unwrap().len(), size as usize, "{}", spec.name);
            }
        }
    }

    #[test]
    fn nulls_empty_lists_and_ipv6() {
        let stream = stream();
        let mut all = full_row(&stream);
        let place = |name| stream.column(name).unwrap();
        let nothing = all.push_text(b"");
        all.columns[place("c_text_list")] = Column::TextList(vec![Some(nothing)]);
        all.columns[place("c_inet")] = Column::Inet(vec![Some("::1".parse().unwrap())]);
        all.columns[place("c_text")] = Column::Text(vec![None]);
        let tuple = read(&encode_rows(&all, [(0, 0)])).remove(0);
        assert_eq!(tuple[place("c_text")], None);
        assert_eq!(tuple[place("c_text_list")].as_deref().unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
        let address = tuple[place("c_inet")].as_deref().unwrap();
        assert_eq!((&address[..4], address[19]), (&[3, 128, 0, 16][..], 1));
    }

    #[test]
    fn nothing_is_no_copy_and_much_is_several_frames() {
        let stream = stream();
        let all = full_row(&stream);
        assert!(encode_rows(&all, []).is_empty());
        let many = encode_rows(&all, std::iter::repeat_n((0, 1), 5000));
        assert!(many.len() > 2 && many.iter().all(|frame| frame.len() < 2 * FRAME));
        assert_eq!(read(&many).len(), 5000);
    }
}
