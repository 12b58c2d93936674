//! Writing JSON text straight into bytes: at two microseconds a message there is no room for a tree.

use super::clock::Stamp;

/// The bytes JSON strings can't hold as they are.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 32 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Appends `text` as the inside of a JSON string.
pub fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| SPECIAL[*byte as usize]) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                out.extend_from_slice(b"\\u00");
                hex(out, u64::from(other), 2);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends a number in decimal.
pub fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the low `width` digits of a number in lower-case hexadecimal.
pub fn hex(out: &mut Vec<u8>, number: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * place) & 15) as usize]);
    }
}

/// A JSON object on its way into bytes. Keys are written as they are.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Opens it.
    pub fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Writes a key; the caller writes its value into what is returned.
    pub fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A text, escaped.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        let out = self.key(key);
        out.push(b'"');
        escape(out, value);
        out.push(b'"');
        self
    }

    /// A text that is escaped already.
    pub fn escaped(&mut self, key: &str, value: &[u8]) -> &mut Self {
        let out = self.key(key);
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
        self
    }

    /// A text that needs no escaping, written piece by piece.
    pub fn quoted(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let out = self.key(key);
        out.push(b'"');
        write(out);
        out.push(b'"');
        self
    }

    /// A time in one of its forms.
    pub fn time(&mut self, key: &str, at: &Stamp, form: fn(&Stamp, &mut Vec<u8>)) -> &mut Self {
        self.quoted(key, |out| form(at, out))
    }

    /// A number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        decimal(self.key(key), value);
        self
    }

    /// A value that is JSON already: `true`, `null`, `-1`, `[…]`.
    pub fn json(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key).extend_from_slice(value.as_bytes());
        self
    }

    /// An object inside.
    pub fn object(&mut self, key: &str, write: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let mut inner = Object::open(self.key(key));
        write(&mut inner);
        inner.close();
        self
    }

    /// Closes it.
    pub fn close(self) {
        self.out.push(b'}');
    }
}

/// Named values of one event, escaped once however often they are written.
#[derive(Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    places: Vec<(&'static str, u32, u32)>,
}

impl Fields {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.text.clear();
        self.places.clear();
    }

    /// Adds a text.
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.with(key, |out| escape(out, value));
    }

    /// Adds what `write` appends, which must be escaped.
    pub fn with(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len() as u32;
        write(&mut self.text);
        self.places.push((key, start, self.text.len() as u32));
    }

    /// Adds a number as text.
    pub fn number(&mut self, key: &'static str, value: u64) {
        self.with(key, |out| decimal(out, value));
    }

    /// Adds a number as Windows writes handles and log-on ids: `0x3e7`.
    pub fn hexadecimal(&mut self, key: &'static str, value: u64) {
        let width = (64 - value.leading_zeros()).div_ceil(4).max(1);
        self.with(key, |out| {
            out.extend_from_slice(b"0x");
            hex(out, value, width);
        });
    }

    /// All values in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.places.iter().map(|&(key, start, end)| (key, &self.text[start as usize..end as usize]))
    }

    /// The value of a key; a dash, as Windows writes it, if there is none.
    pub fn get(&self, key: &str) -> &[u8] {
        self.iter().find(|(other, _)| *other == key).map_or(b"-", |(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_reads_back() {
        let text = "C:\\Windows\\\"a\"\r\n\t\u{1} é";
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.text("k", text).number("n", u64::MAX).json("z", "null");
        object.close();
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value, serde_json::json!({ "k": text, "n": u64::MAX, "z": null }));
    }
}
