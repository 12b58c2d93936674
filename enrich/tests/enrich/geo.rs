//! Countries and AS numbers against the records databases must hold, against the reader of their
//! makers, and from bytes that are no database.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use inosec_enrich::geo::{Database, Error, Geo, Subject, Tally};
use inosec_schemas::{Catalog, Column, Rows, Stream};
use maxminddb::{Reader, path};
use proptest::prelude::*;

use crate::support::{folder, lines};

const FILES: [(&str, Subject); 3] = [
    ("GeoLite2-Country-Test", Subject::Country),
    ("GeoLite2-City-Test", Subject::Country),
    ("GeoLite2-ASN-Test", Subject::Asn),
];

fn bytes(name: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(folder()?.join(format!("geoip/{name}.mmdb"))).unwrap())
}

fn geo(bytes: &[u8], subject: Subject) -> Geo {
    let database = Some(Arc::new(Database::read(bytes, subject).unwrap()));
    match subject {
        Subject::Country => Geo { country: database, asn: None },
        Subject::Asn => Geo { country: None, asn: database },
    }
}

/// The answer to one subject as text, as the records have it.
fn answer(geo: &Geo, subject: Subject, address: IpAddr) -> Option<String> {
    match subject {
        Subject::Country => geo.country(address).map(|code| String::from_utf8(code.to_vec()).unwrap()),
        Subject::Asn => geo.asn(address).map(|number| number.to_string()),
    }
}

#[test]
fn every_record_of_the_corpus_is_found() {
    for (name, subject) in FILES {
        let Some(bytes) = bytes(name) else { return };
        let geo = geo(&bytes, subject);
        let expected = lines(&format!("geoip/{name}.expected.jsonl.zst")).unwrap();
        assert!(expected.len() > 200, "{name}");
        for line in expected {
            let network = line["network"].as_str().unwrap();
            let first: IpAddr = network.split('/').next().unwrap().parse().unwrap();
            let record = &line["record"];
            let wanted = match subject {
                Subject::Country => record["country"]["iso_code"].as_str().map(str::to_owned),
                Subject::Asn => record["autonomous_system_number"].as_u64().map(|number| number.to_string()),
            };
            assert_eq!(answer(&geo, subject, first), wanted, "{name} {network}");
        }
    }
}

/// What the reader of the databases' makers says of an address.
fn theirs(reader: &Reader<&[u8]>, subject: Subject, address: IpAddr) -> Option<String> {
    let found = reader.lookup(address.to_canonical()).unwrap();
    match subject {
        Subject::Country => found.decode_path(&path!["country", "iso_code"]).unwrap(),
        Subject::Asn => {
            let number: Option<u32> = found.decode_path(&path!["autonomous_system_number"]).unwrap();
            number.map(|number| number.to_string())
        }
    }
}

/// At the edges of every network, within and beside it, also written as IPv4 within IPv6.
#[test]
fn ranges_agree_with_the_reader_at_every_edge() {
    for (name, subject) in FILES {
        let Some(bytes) = bytes(name) else { return };
        let (geo, reader) = (geo(&bytes, subject), Reader::from_source(&bytes[..]).unwrap());
        let mut found = 0;
        for network in reader.networks(maxminddb::WithinOptions::default()).unwrap() {
            let network = network.unwrap().network().unwrap();
            for address in around(network.network()).into_iter().chain(around(network.broadcast())) {
                let wanted = theirs(&reader, subject, address);
                found += usize::from(wanted.is_some());
                assert_eq!(answer(&geo, subject, address), wanted, "{name} {address}");
            }
        }
        assert!(found > 1000, "{name}: {found}");
    }
}

fn around(address: IpAddr) -> Vec<IpAddr> {
    match address {
        IpAddr::V4(at) => {
            let near = [at.to_bits().wrapping_sub(1), at.to_bits(), at.to_bits().wrapping_add(1)];
            near.into_iter().flat_map(|bits| written(Ipv4Addr::from_bits(bits))).collect()
        }
        IpAddr::V6(at) => {
            let near = [at.to_bits().wrapping_sub(1), at.to_bits(), at.to_bits().wrapping_add(1)];
            near.map(|bits| Ipv6Addr::from_bits(bits).into()).into()
        }
    }
}

/// An IPv4 address as itself, mapped, compatible, in 6to4 and as a Teredo server.
fn written(address: Ipv4Addr) -> [IpAddr; 5] {
    let bits = u128::from(address.to_bits());
    let six = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
    [
        address.into(),
        address.to_ipv6_mapped().into(),
        six(bits),
        six(0x2002 << 112 | bits << 80),
        six(0x2001 << 112 | bits << 64),
    ]
}

proptest! {
    #[test]
    fn ranges_agree_with_the_reader_anywhere(four: u32, six: u128) {
        for (name, subject) in FILES {
            let Some(bytes) = bytes(name) else { return Ok(()) };
            let (geo, reader) = (geo(&bytes, subject), Reader::from_source(&bytes[..]).unwrap());
            // Most of the databases' IPv6 networks lie in 2000::/3.
            for address in [Ipv4Addr::from(four).into(), Ipv6Addr::from(six).into(), Ipv6Addr::from(six >> 3 | 1 << 125).into()] {
                prop_assert_eq!(answer(&geo, subject, address), theirs(&reader, subject, address), "{} {}", name, address);
            }
        }
    }

    /// Whatever a damaged file says, it is an answer or an error.
    #[test]
    fn damaged_bytes_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), which in 0..3_usize) {
        let (name, subject) = FILES[which];
        let Some(mut bytes) = bytes(name) else { return Ok(()) };
        for (index, byte) in edits {
            let length = bytes.len();
            bytes[index.index(length)] = byte;
        }
        ask_anything(&bytes, subject);
    }

    /// A file being overwritten in place: the head of one, the tail of another.
    #[test]
    fn half_of_one_and_half_of_another_never_panic(cut: prop::sample::Index, which in 0..3_usize, other in 0..3_usize) {
        let (Some(head), Some(tail)) = (bytes(FILES[which].0), bytes(FILES[other].0)) else { return Ok(()) };
        let cut = cut.index(head.len().min(tail.len()));
        let mixed = [&head[..cut], &tail[cut..]].concat();
        ask_anything(&mixed, FILES[which].1);
    }

    #[test]
    fn bytes_that_are_no_database_are_refused(noise: Vec<u8>) {
        prop_assert!(Database::read(&noise, Subject::Country).is_err());
    }
}

fn ask_anything(bytes: &[u8], subject: Subject) {
    let Ok(database) = Database::read(bytes, subject) else { return };
    let geo = Geo { country: Some(Arc::new(database)), asn: None };
    for address in ["0.0.0.0", "81.2.69.142", "255.255.255.255", "::", "2001:480::1", "2002:102:304::"] {
        let _ = geo.country(address.parse().unwrap());
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    for (name, subject) in FILES {
        let Some(bytes) = bytes(name) else { return };
        // The description of the tree comes last: without its end nothing can be read.
        for length in (0..bytes.len() - 1).step_by(7).chain([bytes.len() - 1]) {
            let error = Database::read(&bytes[..length], subject).expect_err("refused");
            assert!(matches!(error, Error::Damaged(_)), "{name} cut at {length}: {error}");
        }
    }
}

/// A cycle would be walked for ages.
#[test]
fn a_tree_that_leads_round_and_round_is_refused() {
    for record in [[0; 6], [0, 0, 0, 0, 0, 1]] {
        let started = std::time::Instant::now();
        assert!(Database::read(&tiny(record, &flat("country_code", "DE")), Subject::Country).is_err());
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
    }
}

#[test]
fn a_database_of_the_other_kind_is_refused_by_name() {
    let (Some(asn), Some(country)) = (bytes("GeoLite2-ASN-Test"), bytes("GeoLite2-Country-Test")) else {
        return;
    };
    let error = Database::read(&asn, Subject::Country).expect_err("refused").to_string();
    assert!(error.contains("GeoLite2-ASN") && error.contains("countries"), "{error}");
    let error = Database::read(&country, Subject::Asn).expect_err("refused").to_string();
    assert!(error.contains("GeoLite2-Country") && error.contains("AS numbers"), "{error}");
}

#[test]
fn records_of_other_makers_are_understood() {
    let one: IpAddr = "1.2.3.4".parse().unwrap();
    let of = |key, text, subject| {
        // All of 0.0.0.0/1, and nothing of the rest.
        let bytes = tiny([0, 0, 17, 0, 0, 1], &flat(key, text));
        Database::read(&bytes, subject).is_ok().then(|| answer(&geo(&bytes, subject), subject, one)).flatten()
    };
    assert_eq!(of("country_code", "de", Subject::Country).as_deref(), Some("DE"));
    assert_eq!(of("country", "NL", Subject::Country).as_deref(), Some("NL"));
    assert_eq!(of("country", "Netherlands", Subject::Country), None, "a name is no code");
    assert_eq!(of("asn", "AS15169", Subject::Asn).as_deref(), Some("15169"));
    assert_eq!(of("asn", "none", Subject::Asn), None);
}

/// A record of one text.
fn flat(key: &str, text: &str) -> Vec<u8> {
    [&[0xe1], &string(key)[..], &string(text)].concat()
}

fn string(text: &str) -> Vec<u8> {
    assert!(text.len() < 29);
    [&[0x40 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// An IPv4 database of one node and one record (MaxMind DB format 2.0): to the node itself leads 0, to
/// nothing 1, to the record 17.
fn tiny(node: [u8; 6], record: &[u8]) -> Vec<u8> {
    let number = |value: u8| vec![0xa1, value];
    let mut bytes = [&node[..], &[0; 16], record, b"\xab\xcd\xefMaxMind.com"].concat();
    bytes.push(0xe9);
    for (key, value) in [
        ("binary_format_major_version", number(2)),
        ("binary_format_minor_version", number(0)),
        ("build_epoch", vec![0x01, 0x02, 100]),
        ("database_type", string("tiny")),
        ("description", vec![0xe0]),
        ("ip_version", number(4)),
        ("languages", vec![0x00, 0x04]),
        ("node_count", vec![0xc1, 1]),
        ("record_size", number(24)),
    ] {
        bytes.extend(string(key));
        bytes.extend(value);
    }
    bytes
}

/// Rows of a stream with these source and destination addresses.
fn rows(stream: &Arc<Stream>, addresses: &[(Option<&str>, Option<&str>)]) -> Rows {
    let mut rows = Rows::new(Arc::clone(stream));
    let parse = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    for (name, values) in [
        ("src_ip", addresses.iter().map(|(source, _)| parse(*source)).collect::<Vec<_>>()),
        ("dst_ip", addresses.iter().map(|(_, destination)| parse(*destination)).collect()),
    ] {
        rows.columns[position(stream, name)] = Column::Inet(values);
    }
    rows.message = (0..u32::try_from(addresses.len()).unwrap()).collect();
    rows.finish();
    rows
}

fn position(stream: &Stream, name: &str) -> usize {
    stream.columns.iter().position(|column| column.name == name).unwrap()
}

fn shown(rows: &Rows, name: &str) -> Vec<String> {
    let column = position(&rows.stream, name);
    let show = |row| match &rows.columns[column] {
        Column::Text(_) => rows.text(column, row).map(|text| String::from_utf8(text.to_vec()).unwrap()),
        _ => rows.integer(column, row).map(|number| number.to_string()),
    };
    (0..rows.len()).map(|row| show(row).unwrap_or_default()).collect()
}

#[test]
fn columns_beside_addresses_are_filled_and_what_messages_say_stays() {
    let (Some(city), Some(asn)) = (bytes("GeoLite2-City-Test"), bytes("GeoLite2-ASN-Test")) else { return };
    let geo = Geo { country: geo(&city, Subject::Country).country, asn: geo(&asn, Subject::Asn).asn };
    let stream = Arc::clone(&Catalog::embedded().unwrap().streams["agent_logs"]);
    let mut rows = rows(
        &stream,
        &[
            (Some("81.2.69.142"), Some("1.0.0.7")),
            (Some("::ffff:81.2.69.142"), Some("::ffff:1.0.0.7")),
            (Some("10.1.2.3"), Some("127.0.0.1")),
            (Some("2001:480::1"), None),
            (Some("81.2.69.142"), None),
            (Some("fe80::1"), Some("::1")),
        ],
    );
    let told = rows.push_text(b"XX");
    let Column::Text(countries) = &mut rows.columns[position(&stream, "src_country")] else { panic!("text") };
    countries[4] = Some(told);
    let Column::Int64(numbers) = &mut rows.columns[position(&stream, "dst_asn")] else { panic!("a number") };
    numbers[1] = Some(64512);

    // In two halves: what is filled once isn't asked for again.
    let mut tallies = geo.enrich(&mut rows, 0..3);
    let rest = geo.enrich(&mut rows, 3..6);
    for (sum, more) in [(&mut tallies.country, rest.country), (&mut tallies.asn, rest.asn)] {
        sum.found += more.found;
        sum.missing += more.missing;
    }
    assert_eq!(shown(&rows, "src_country"), ["GB", "GB", "", "US", "XX", ""]);
    assert_eq!(shown(&rows, "dst_asn"), ["15169", "64512", "", "", "", ""]);
    assert_eq!(shown(&rows, "dst_country"), [""; 6]);
    assert_eq!(tallies.country, Tally { found: 3, missing: 6 });
    assert_eq!(tallies.asn.found, 1);

    let before = format!("{rows:?}");
    assert_eq!(Geo::default().enrich(&mut rows, 0..6), inosec_enrich::geo::Tallies::default());
    assert_eq!(format!("{rows:?}"), before, "without databases nothing changes");
}

/// A stream of the user's own, and one whose columns have the names but not the kinds.
#[test]
fn columns_are_found_by_name_and_kind() {
    let Some(city) = bytes("GeoLite2-City-Test") else { return };
    let geo = geo(&city, Subject::Country);
    let text = |country: &str| {
        let column = |name: &str, kind: &str, more: &str| {
            format!("[[columns]]\nname = \"{name}\"\nkind = \"{kind}\"\n{more}description = \"Any.\"\n")
        };
        let fixed = [
            column("ts", "timestamp", "fill = \"ts\"\nrequired = true\n"),
            column("tenant_id", "uuid", "fill = \"tenant\"\nrequired = true\n"),
            column("seq", "int64", "fill = \"seq\"\nrequired = true\n"),
        ]
        .concat();
        let own = column("client_ip", "inet", "")
            + &column("zip", "inet", "")
            + &column("client_country", country, "");
        format!("name = \"visits\"\ndescription = \"Visits.\"\npartition_interval = \"day\"\n{fixed}{own}")
    };
    for (kind, wanted) in [("text", "GB"), ("int32", "")] {
        let stream = Arc::new(Stream::parse("visits.toml", &text(kind)).unwrap());
        let mut rows = Rows::new(Arc::clone(&stream));
        rows.columns[position(&stream, "client_ip")] =
            Column::Inet(vec![Some("81.2.69.142".parse().unwrap())]);
        rows.message = vec![0];
        rows.finish();
        geo.enrich(&mut rows, 0..1);
        assert_eq!(shown(&rows, "client_country"), [wanted]);
    }
}
