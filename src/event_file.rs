//! Files of events: one message a line, zstd-compressed if the name says so, `-` for standard input.
//!
//! Read batch by batch, so that a file of any size takes the memory of one batch.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Messages of one batch: enough that a column's values repeat.
const MESSAGES: usize = 2000;
/// Bytes of one batch.
const BYTES: usize = 8 << 20;

/// Opens a file for reading line by line.
pub fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, io::stdin())));
    }
    let raw = File::open(file)?;
    let plain: Box<dyn Read> = if file.extension().is_some_and(|extension| extension == "zst") {
        Box::new(zstd::Decoder::new(raw)?)
    } else {
        Box::new(raw)
    };
    Ok(Box::new(BufReader::with_capacity(1 << 20, plain)))
}

/// Some lines of a file, blank ones left out.
#[derive(Debug, Default)]
pub struct Lines {
    text: Vec<u8>,
    /// Where each ends, and its number in the file, counted from 1.
    ends: Vec<(usize, u64)>,
}

impl Lines {
    /// The lines without their ends.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        starts.zip(&self.ends).map(|(start, (end, _))| &self.text[start..*end])
    }

    /// One line.
    #[must_use]
    pub fn message(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before].0);
        &self.text[start..self.ends[index].0]
    }

    /// A line's number in the file.
    #[must_use]
    pub fn number(&self, index: u32) -> u64 {
        self.ends[index as usize].1
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of all lines.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Adds a line that stands nowhere else.
    pub fn push(&mut self, line: &[u8], number: u64) {
        self.text.extend_from_slice(line);
        self.ends.push((self.text.len(), number));
    }
}

/// Reads a file of events batch by batch.
pub struct EventFile {
    input: Box<dyn BufRead>,
    longest: usize,
    number: u64,
}

impl EventFile {
    /// Opens a file. Of a line longer than `longest` so much is kept that it is seen to be too long.
    pub fn open(file: &Path, longest: usize) -> io::Result<Self> {
        Ok(Self { input: open(file)?, longest, number: 0 })
    }

    /// Reads the next batch in place of what `lines` held; none are left when it stays empty.
    pub fn read(&mut self, lines: &mut Lines) -> io::Result<()> {
        lines.text.clear();
        lines.ends.clear();
        while lines.len() < MESSAGES && lines.bytes() < BYTES {
            let start = lines.text.len();
            if !read_line(&mut self.input, &mut lines.text, self.longest.saturating_add(1))? {
                break;
            }
            self.number += 1;
            let line = &lines.text[start..];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let end = start + line.len();
            if line.iter().all(u8::is_ascii_whitespace) {
                lines.text.truncate(start);
            } else {
                lines.text.truncate(end);
                lines.ends.push((end, self.number));
            }
        }
        Ok(())
    }
}

/// Appends the next line, at most `most` bytes of it; false at the end of the file.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    let start = line.len();
    let mut any = false;
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = most.saturating_sub(line.len() - start);
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &'static str, longest: usize) -> EventFile {
        EventFile { input: Box::new(BufReader::with_capacity(3, text.as_bytes())), longest, number: 0 }
    }

    #[test]
    fn blank_lines_are_counted_and_skipped() {
        let mut lines = Lines::default();
        let mut events = file("\none\r\n \t\r\n\ntwo", 100);
        events.read(&mut lines).expect("read");
        let found: Vec<_> = (0..).zip(lines.messages()).map(|(at, line)| (lines.number(at), line)).collect();
        assert_eq!(found, [(2, &b"one"[..]), (5, b"two")]);
        assert_eq!((lines.message(0), lines.message(1)), (&b"one"[..], &b"two"[..]));
        events.read(&mut lines).expect("read");
        assert!(lines.is_empty());
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_limit() {
        let mut lines = Lines::default();
        file("0123456789\nshort\n", 4).read(&mut lines).expect("read");
        assert_eq!(lines.messages().collect::<Vec<_>>(), [&b"01234"[..], b"short"]);
    }
}
