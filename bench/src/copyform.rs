//! COPY's binary format (PostgreSQL manual, COPY, "Binary Format"): written for the rows others would
//! store, read for the blocks inosec makes.

use bytes::{BufMut, Bytes, BytesMut};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Flags and the length of the header's extension.
const HEADER_REST: usize = 8;
/// A frame is sent once it has this many bytes.
const FRAME: usize = 128 << 10;
/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH: i64 = 946_684_800_000_000;

/// Writes tuples into frames.
pub struct Writer {
    frames: Vec<Bytes>,
    frame: BytesMut,
}

impl Writer {
    pub fn new() -> Self {
        let mut frame = BytesMut::with_capacity(FRAME * 2);
        frame.put_slice(SIGNATURE);
        frame.put_bytes(0, HEADER_REST);
        Self { frames: Vec::new(), frame }
    }

    pub fn tuple(&mut self, fields: i16) {
        if self.frame.len() >= FRAME {
            let full = std::mem::replace(&mut self.frame, BytesMut::with_capacity(FRAME * 2));
            self.frames.push(full.freeze());
        }
        self.frame.put_i16(fields);
    }

    /// A value in its binary form; `None` is SQL's null.
    pub fn field(&mut self, value: Option<&[u8]>) {
        let Some(value) = value else { return self.frame.put_i32(-1) };
        self.frame.put_i32(value.len() as i32);
        self.frame.put_slice(value);
    }

    /// A timestamptz of microseconds since 1970.
    pub fn timestamp(&mut self, micros: i64) {
        self.field(Some(&(micros - EPOCH).to_be_bytes()));
    }

    pub fn finish(mut self) -> Vec<Bytes> {
        self.frame.put_i16(-1);
        self.frames.push(self.frame.freeze());
        self.frames
    }
}

/// The values of one column of a whole COPY stream. `None` if it isn't one, or a value is null.
pub fn column(frames: &[Bytes], wanted: usize) -> Option<Vec<Bytes>> {
    let stream = frames.concat();
    let mut rest = stream.get(SIGNATURE.len() + HEADER_REST..)?;
    let mut values = Vec::new();
    loop {
        let fields = i16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        if fields < 0 {
            return Some(values);
        }
        for field in 0..usize::try_from(fields).ok()? {
            let length = i32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
            let value = take(&mut rest, usize::try_from(length.max(0)).ok()?)?;
            if field == wanted {
                values.push((length >= 0).then(|| Bytes::copy_from_slice(value))?);
            }
        }
    }
}

/// Bytes of every column's values, length fields included. `None` if it isn't a COPY stream.
pub fn widths(frames: &[Bytes]) -> Option<Vec<usize>> {
    let stream = frames.concat();
    let mut rest = stream.get(SIGNATURE.len() + HEADER_REST..)?;
    let mut widths = Vec::new();
    loop {
        let fields = i16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        let Ok(fields) = usize::try_from(fields) else { return Some(widths) };
        widths.resize(fields.max(widths.len()), 0);
        for width in &mut widths[..fields] {
            let length = i32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
            let length = usize::try_from(length.max(0)).ok()?;
            take(&mut rest, length)?;
            *width += length + 4;
        }
    }
}

/// How many tuples a COPY stream holds. `None` if it isn't one.
pub fn count(frames: &[Bytes]) -> Option<usize> {
    if frames.is_empty() { Some(0) } else { column(frames, 0).map(|values| values.len()) }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::new();
        for number in 0..5000_u32 {
            writer.tuple(3);
            writer.timestamp(EPOCH + i64::from(number));
            writer.field(None);
            writer.field(Some(&[7; 100]));
        }
        let frames = writer.finish();
        assert!(frames.len() > 1 && frames.iter().all(|frame| frame.len() <= FRAME + 200));
        assert_eq!(count(&frames), Some(5000));
        assert_eq!(widths(&frames), Some(vec![5000 * 12, 5000 * 4, 5000 * 104]));
        let times = column(&frames, 0).expect("a stream");
        assert_eq!(times[4999][..], 4999_i64.to_be_bytes());
        assert_eq!(column(&frames, 2).expect("a stream")[0].len(), 100);
        assert_eq!(column(&frames, 1), None, "a null is no value");
        assert_eq!(count(&[]), Some(0));
        assert_eq!(count(&[Bytes::from_static(b"PGCOPY")]), None);
    }
}
