//! Where addresses are: the country and autonomous system of a row's addresses, from databases in
//! MaxMind's format.
//!
//! In: the bytes of a database, then [`Rows`]. Out: the same rows with country and ASN columns filled.
//! A database is read to the end once, into sorted ranges of addresses, and its bytes let go: of
//! GeoLite2-City's 57 MB some 2 MB remain, a look-up costs a tenth of one in the file's own tree, and
//! every record was decoded before the first row asks: damage is found when a database is loaded,
//! never on the road.

mod ranges;
mod record;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use inosec_schemas::{Column, Kind, Rows, Slice, Stream};
use maxminddb::MaxMindDbError;

use ranges::Ranges;

/// Why bytes are no database that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are truncated, altered, or something else altogether.
    #[error("truncated, damaged or no MaxMind database")]
    Damaged(#[from] MaxMindDbError),
    /// The search tree leads to the same networks again and again.
    #[error("damaged: the search tree doesn't lead to one network after another")]
    Tangled,
    /// It says nothing of what it is to be asked for.
    #[error("a database of type {kind:?} that holds no {}", subject.plural())]
    Empty {
        /// What the database calls itself.
        kind: String,
        /// What it was to be asked for.
        subject: Subject,
    },
}

/// What a database is asked for. The names are those of configuration and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The country.
    Country,
    /// The autonomous system.
    Asn,
}

impl Subject {
    /// Its name in `[geo]` and as the label `database`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::Asn => "asn",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Country => "countries",
            Self::Asn => "AS numbers",
        }
    }
}

/// One database, read for one subject.
#[derive(Debug)]
pub struct Database {
    kind: String,
    built: u64,
    ranges: Ranges,
}

impl Database {
    /// Reads a database. GeoLite2, GeoIP2 and DB-IP databases of either subject are understood, City
    /// ones too, and those that keep `country_code` or `asn` at the top of a record, as IPinfo's.
    /// About a second for GeoLite2-City: not for async threads.
    pub fn read(bytes: &[u8], subject: Subject) -> Result<Self, Error> {
        let reader = maxminddb::Reader::from_source(bytes)?;
        let ranges = Ranges::read(&reader, subject)?;
        let metadata = reader.metadata();
        if ranges.is_empty() {
            return Err(Error::Empty { kind: metadata.database_type.clone(), subject });
        }
        Ok(Self { kind: metadata.database_type.clone(), built: metadata.build_epoch, ranges })
    }

    /// What it calls itself, such as `GeoLite2-City`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// When it was built, in seconds since 1970 UTC.
    #[must_use]
    pub fn built(&self) -> u64 {
        self.built
    }

    /// How many ranges of addresses have another answer than the one before.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    fn find(&self, address: IpAddr) -> Option<NonZeroU32> {
        NonZeroU32::new(self.ranges.find(address))
    }
}

/// The databases in force; either may be missing.
#[derive(Debug, Clone, Default)]
pub struct Geo {
    /// Says countries.
    pub country: Option<Arc<Database>>,
    /// Says autonomous systems.
    pub asn: Option<Arc<Database>>,
}

/// How many addresses a database was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// It knew them.
    pub found: u64,
    /// It didn't: private addresses, for instance.
    pub missing: u64,
}

impl Tally {
    fn count<T>(&mut self, answer: Option<T>) -> Option<T> {
        match answer {
            Some(_) => self.found += 1,
            None => self.missing += 1,
        }
        answer
    }
}

/// What filling rows took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Of the country database.
    pub country: Tally,
    /// Of the ASN database.
    pub asn: Tally,
}

impl Geo {
    /// The country of an address, as ISO 3166-1 alpha-2.
    #[must_use]
    pub fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        let found = self.country.as_ref()?.find(address)?;
        let [_, _, first, second] = found.get().to_be_bytes();
        Some([first, second])
    }

    /// The number of an address' autonomous system.
    #[must_use]
    pub fn asn(&self, address: IpAddr) -> Option<u32> {
        self.asn.as_ref()?.find(address).map(NonZeroU32::get)
    }

    /// Fills the country and ASN columns that stand beside address columns: `src_country` (text) and
    /// `src_asn` (64-bit integer) beside `src_ip`, and so on for every name that ends in `ip`. What a
    /// message said itself stays. Only the rows `of` are looked at; without such columns, or databases, it
    /// costs nothing.
    pub fn enrich(&self, rows: &mut Rows, of: Range<usize>) -> Tallies {
        let mut tallies = Tallies::default();
        if of.is_empty() || (self.country.is_none() && self.asn.is_none()) {
            return tallies;
        }
        for place in Place::all(&rows.stream) {
            if let (Some(column), Some(_)) = (place.country, &self.country) {
                self.fill_country(rows, of.clone(), (place.address, column), &mut tallies.country);
            }
            if let (Some(column), Some(_)) = (place.asn, &self.asn) {
                self.fill_asn(rows, of.clone(), (place.address, column), &mut tallies.asn);
            }
        }
        tallies
    }

    fn fill_country(&self, rows: &mut Rows, of: Range<usize>, places: (usize, usize), tally: &mut Tally) {
        let Ok([Column::Inet(addresses), Column::Text(values)]) =
            rows.columns.get_disjoint_mut([places.0, places.1])
        else {
            return;
        };
        for (value, address) in values[of.clone()].iter_mut().zip(&addresses[of]) {
            if let (None, Some(address)) = (&value, address) {
                let found = tally.count(self.country(*address));
                *value = found.map(|code| Slice::append(&mut rows.text, &code));
            }
        }
    }

    fn fill_asn(&self, rows: &mut Rows, of: Range<usize>, places: (usize, usize), tally: &mut Tally) {
        let Ok([Column::Inet(addresses), Column::Int64(values)]) =
            rows.columns.get_disjoint_mut([places.0, places.1])
        else {
            return;
        };
        for (value, address) in values[of.clone()].iter_mut().zip(&addresses[of]) {
            if let (None, Some(address)) = (&value, address) {
                *value = tally.count(self.asn(*address)).map(i64::from);
            }
        }
    }
}

/// An address column and what stands beside it, as positions in the stream.
struct Place {
    address: usize,
    country: Option<usize>,
    asn: Option<usize>,
}

impl Place {
    fn all(stream: &Stream) -> Vec<Self> {
        let find = |name: String, kind| {
            stream.columns.iter().position(|column| column.name == name && column.kind == kind)
        };
        let beside = |(address, prefix): (usize, &str)| Self {
            address,
            country: find(format!("{prefix}country"), Kind::Text),
            asn: find(format!("{prefix}asn"), Kind::Int64),
        };
        let columns = stream.columns.iter().enumerate();
        let addresses = columns.filter_map(|(position, column)| {
            let prefix = column.name.strip_suffix("ip")?;
            let whole = prefix.is_empty() || prefix.ends_with('_');
            (whole && column.kind == Kind::Inet).then_some((position, prefix))
        });
        addresses.map(beside).collect()
    }
}
