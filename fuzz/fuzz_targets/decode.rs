//! Any bytes as a message's value, on both streams: one row or one dead letter, and if a row, one that
//! PostgreSQL takes and whose message comes back from its raw block byte for byte.
#![no_main]

use std::cell::RefCell;

use inosec_fuzz::{Road, Sent};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static ROAD: RefCell<Road> = RefCell::new(Road::embedded());
}

fuzz_target!(|value: &[u8]| {
    ROAD.with_borrow_mut(|road| {
        for stream in ["agent_logs", "threat_events"] {
            let batch = road.decode(stream, &[Sent { value, format: None, offset: 1 }]);
            inosec_fuzz::batch(&batch);
            inosec_fuzz::sealed(batch, 3);
        }
    });
});
