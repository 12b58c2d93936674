//! What a GeoIP database costs: to load, to keep, to ask.
//!
//! `cargo run --release -p inosec-enrich --example geo_lookup -- FILE [country|asn]`: random IPv4
//! addresses, which no cache helps, against the ranges and against the file's own tree; then rows of
//! agent_logs with such a source and destination each.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use inosec_enrich::geo::{Database, Geo, Subject};
use inosec_schemas::{Catalog, Column, Rows};
use maxminddb::{Reader, path};

const ADDRESSES: usize = 1_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().expect("a database");
    let asn = arguments.next().is_some_and(|subject| subject == "asn");
    let bytes = std::fs::read(file).unwrap();
    let started = Instant::now();
    let database = Database::read(&bytes, if asn { Subject::Asn } else { Subject::Country }).unwrap();
    println!(
        "{}: {} bytes, {} ranges, read in {:?}",
        database.kind(),
        bytes.len(),
        database.ranges(),
        started.elapsed()
    );
    let reader = Reader::from_source(&bytes[..]).unwrap();
    let database = Arc::new(database);
    let geo = Geo { country: (!asn).then(|| Arc::clone(&database)), asn: asn.then_some(database) };
    let mut state = 1_u64;
    let addresses: Vec<IpAddr> = (0..ADDRESSES)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            IpAddr::V4(Ipv4Addr::from_bits((state >> 32) as u32))
        })
        .collect();
    for _ in 0..3 {
        rows(&geo, &addresses);
        time("ranges", &addresses, |address| {
            if asn { geo.asn(address).is_some() } else { geo.country(address).is_some() }
        });
        time("the tree and one member", &addresses, |address| {
            let found = reader.lookup(address).unwrap();
            if asn {
                found.decode_path::<u32>(&path!["autonomous_system_number"]).unwrap().is_some()
            } else {
                found.decode_path::<&str>(&path!["country", "iso_code"]).unwrap().is_some()
            }
        });
    }
}

/// Batches as the road has them.
fn rows(geo: &Geo, addresses: &[IpAddr]) {
    let stream = Arc::clone(&Catalog::embedded().unwrap().streams["agent_logs"]);
    let position = |name: &str| stream.columns.iter().position(|column| column.name == name).unwrap();
    let (mut events, mut spent) = (0, std::time::Duration::ZERO);
    for chunk in addresses.chunks_exact(20_000) {
        let (sources, destinations) = chunk.split_at(10_000);
        let mut rows = Rows::new(Arc::clone(&stream));
        for (name, side) in [("src_ip", sources), ("dst_ip", destinations)] {
            rows.columns[position(name)] = Column::Inet(side.iter().copied().map(Some).collect());
        }
        rows.message = (0..10_000).collect();
        rows.finish();
        let started = Instant::now();
        black_box(geo.enrich(&mut rows, 0..10_000));
        spent += started.elapsed();
        events += rows.len();
    }
    println!("enriching rows: {:.0} ns an event of two addresses", spent.as_nanos() as f64 / events as f64);
}

fn time(what: &str, addresses: &[IpAddr], ask: impl Fn(IpAddr) -> bool) {
    let started = Instant::now();
    let found = addresses.iter().filter(|address| black_box(ask(**address))).count();
    let each = started.elapsed().as_nanos() as f64 / addresses.len() as f64;
    println!("{what}: {each:.0} ns an address, {found} of {} found", addresses.len());
}
