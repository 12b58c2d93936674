//! The names of the enrich room's metrics, each described once. Labels come from closed sets; this
//! room counts, whoever calls it records.

use metrics::{Unit, describe_counter, describe_gauge};

/// Addresses a GeoIP database was asked for. Labels: `database` = `country` or `asn`; `outcome` =
/// `found` or `missing`.
pub const GEO_LOOKUPS: &str = "inosec_enrich_geo_lookups_total";
/// Attempts to load a GeoIP database. Labels: `database`; `outcome` = `loaded` or `failed`.
pub const GEO_LOADS: &str = "inosec_enrich_geo_loads_total";
/// When the GeoIP database in force was built. Label: `database`.
pub const GEO_BUILT: &str = "inosec_enrich_geo_build_timestamp_seconds";

/// Registers every description with the recorder in place.
pub fn describe() {
    describe_counter!(GEO_LOOKUPS, Unit::Count, "Addresses a GeoIP database was asked for");
    describe_counter!(GEO_LOADS, Unit::Count, "Attempts to load a GeoIP database");
    describe_gauge!(GEO_BUILT, Unit::Seconds, "When the GeoIP database in force was built");
}
