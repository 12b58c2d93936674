//! Descriptions of streams and formats as operators may write them: parsed or refused, never a panic;
//! and whatever is taken can be decoded by.
//!
//! In: two descriptions with a line `---` between them, or one.
#![no_main]

use std::sync::{Arc, LazyLock};

use inosec_fuzz::{Road, SOUND, Sent};
use inosec_schemas::{Catalog, Format, Stream};
use libfuzzer_sys::fuzz_target;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().expect("sound descriptions"));

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut catalog = CATALOG.clone();
    let mut streams = Vec::new();
    for part in text.split("\n---\n").take(2) {
        if let Ok(stream) = Stream::parse("fuzz.toml", part) {
            let _ = inosec_schemas::create_table(&stream);
            let _ = inosec_schemas::arrow_schema(&stream);
            let _ = inosec_schemas::column_docs(&stream);
            streams.push(stream.name.clone());
            catalog.streams.insert(stream.name.clone(), Arc::new(stream));
        }
        if let Ok(format) = Format::parse("fuzz.toml", part, &Default::default())
            && sound(&format, &catalog)
        {
            streams.extend(format.streams.keys().cloned());
            catalog.formats.insert(0, Arc::new(format));
        }
    }
    for stream in streams {
        let sent: Vec<Sent<'_>> = (0..)
            .zip(SOUND)
            .map(|(offset, text)| Sent { value: text.as_bytes(), format: Some("fuzz"), offset })
            .collect();
        let batch = Road::new(&catalog).decode(&stream, &sent);
        inosec_fuzz::batch(&batch);
        inosec_fuzz::sealed(batch, 3);
    }
});

/// What a catalogue checks before it takes a format.
fn sound(format: &Format, catalog: &Catalog) -> bool {
    format.streams.iter().all(|(name, mapping)| {
        let stream = catalog.streams.get(name);
        stream.is_some_and(|stream| mapping.columns.keys().all(|column| stream.column(column).is_some()))
    })
}
