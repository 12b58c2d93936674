//! Any bytes as an event that rules look at: what matches it depends neither on what came before nor on
//! the batch it is in.
//!
//! In: records with line feeds between them. The last one is the event; the others come before it.
#![no_main]

use std::cell::RefCell;
use std::sync::LazyLock;

use inosec_fuzz::{Detect, SOUND};
use inosec_schemas::Catalog;
use libfuzzer_sys::fuzz_target;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().expect("sound descriptions"));

thread_local! {
    /// One sees only the events themselves, the other all the rest.
    static DETECTS: RefCell<[Detect; 2]> = RefCell::new([Detect::new(&CATALOG), Detect::new(&CATALOG)]);
}

fuzz_target!(|data: &[u8]| {
    let mut records: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let event = records.pop().unwrap_or_default();
    let alike: Vec<u8> =
        event.iter().map(|byte| if byte.is_ascii_alphabetic() { byte ^ 1 } else { *byte }).collect();
    let sound = SOUND.iter().map(|text| text.as_bytes());
    let before = sound.chain(records).chain([alike.as_slice()]);
    let all: Vec<(&[u8], Option<&str>)> = before.chain([event]).map(|record| (record, None)).collect();
    DETECTS.with_borrow_mut(|[alone, others]| {
        let once = alone.batch(&[(event, None)]);
        let again = alone.batch(&[(event, None)]);
        assert_eq!(once, again, "seen for the second time");
        let after = others.batch(&all);
        assert_eq!(once.first(), after.last(), "after others");
    });
});
