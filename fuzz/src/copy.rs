//! Reads PostgreSQL's binary COPY format (PostgreSQL documentation, COPY, "Binary Format").

/// Takes a big-endian integer off the front.
macro_rules! take {
    ($bytes:ident, $kind:ty) => {{
        let (head, rest) = $bytes.split_first_chunk().expect("COPY data that ends early");
        $bytes = rest;
        <$kind>::from_be_bytes(*head)
    }};
}

/// The fields of every tuple; `None` is null. Frames may be cut anywhere; no frames are no tuples.
///
/// # Panics
/// If it isn't COPY data from signature to trailer.
#[must_use]
pub fn tuples(frames: &[impl AsRef<[u8]>]) -> Vec<Vec<Option<Vec<u8>>>> {
    if frames.is_empty() {
        return Vec::new();
    }
    let all: Vec<u8> = frames.iter().flat_map(|frame| frame.as_ref()).copied().collect();
    let mut rest = all.strip_prefix(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0").expect("a header");
    let mut tuples = Vec::new();
    loop {
        let count = take!(rest, i16);
        if count == -1 {
            assert!(rest.is_empty(), "nothing follows the trailer");
            return tuples;
        }
        let mut tuple = Vec::new();
        for _ in 0..count {
            let length = take!(rest, i32);
            let Ok(length) = usize::try_from(length) else {
                assert_eq!(length, -1, "a length or null");
                tuple.push(None);
                continue;
            };
            let (field, after) = rest.split_at_checked(length).expect("a whole field");
            rest = after;
            tuple.push(Some(field.to_vec()));
        }
        tuples.push(tuple);
    }
}
