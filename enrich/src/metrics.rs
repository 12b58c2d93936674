//! The names of the enrich room's metrics, each described once. Labels come from closed sets; this
//! room counts, whoever calls it records.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Addresses a GeoIP database was asked for. Labels: `database` = `country` or `asn`; `outcome` =
/// `found` or `missing`.
pub const GEO_LOOKUPS: &str = "inosec_enrich_geo_lookups_total";
/// Attempts to load a GeoIP database. Labels: `database`; `outcome` = `loaded` or `failed`.
pub const GEO_LOADS: &str = "inosec_enrich_geo_loads_total";
/// When the GeoIP database in force was built. Label: `database`.
pub const GEO_BUILT: &str = "inosec_enrich_geo_build_timestamp_seconds";

/// Whether this process leads the correlation of a database. Label: `database`.
pub const CORRELATE_LEADING: &str = "inosec_correlate_leading_state";
/// How far correlation's clock is behind the wall clock: nothing that arrived before it is missing. Label:
/// `database`.
pub const CORRELATE_LAG: &str = "inosec_correlate_clock_lag_seconds";
/// Threat events correlated. Labels: `outcome` = `counted`, or `late` if they arrived before the horizon.
pub const CORRELATE_EVENTS: &str = "inosec_correlate_events_total";
/// Threat events whose time lay in the future and was replaced by their arrival.
pub const CORRELATE_FUTURE: &str = "inosec_correlate_future_events_total";
/// State that went because its tenant was beyond its limits. Label: `what` = `groups` or `entries`.
pub const CORRELATE_EVICTED: &str = "inosec_correlate_evicted_total";
/// Groups and events in groups that are kept in mind. Labels: `database`; `what` = `groups` or `entries`.
pub const CORRELATE_HELD: &str = "inosec_correlate_held_objects";
/// Alerts written. Label: `change` = `opened`, `grown`, `absorbed`, `shrunk`, `merged`, `withdrawn`.
pub const CORRELATE_ALERTS: &str = "inosec_correlate_alerts_total";
/// From taking queued threat events to their committed alerts.
pub const CORRELATE_SECONDS: &str = "inosec_correlate_fold_duration_seconds";
/// How long a new leader took to rebuild what the one before knew.
pub const CORRELATE_REBUILD: &str = "inosec_correlate_rebuild_duration_seconds";
/// Changes of alerts sent to the alerts topic. Label: `outcome` = `sent`, or `failed` if they are sent again.
pub const RELAY_CHANGES: &str = "inosec_relay_changes_total";

/// Registers every description with the recorder in place.
pub fn describe() {
    describe_counter!(GEO_LOOKUPS, Unit::Count, "Addresses a GeoIP database was asked for");
    describe_counter!(GEO_LOADS, Unit::Count, "Attempts to load a GeoIP database");
    describe_gauge!(CORRELATE_LEADING, "Whether this process leads the correlation of a database");
    describe_gauge!(CORRELATE_LAG, Unit::Seconds, "How far correlation's clock is behind the wall clock");
    describe_counter!(CORRELATE_EVENTS, Unit::Count, "Threat events correlated, by outcome");
    describe_counter!(
        CORRELATE_FUTURE,
        Unit::Count,
        "Threat events whose time was replaced by their arrival"
    );
    describe_counter!(
        CORRELATE_EVICTED,
        Unit::Count,
        "State that went because its tenant was beyond its limits"
    );
    describe_gauge!(CORRELATE_HELD, Unit::Count, "Groups and events in groups that are kept in mind");
    describe_counter!(CORRELATE_ALERTS, Unit::Count, "Alerts written, by change");
    describe_histogram!(
        CORRELATE_SECONDS,
        Unit::Seconds,
        "From taking threat events to their committed alerts"
    );
    describe_histogram!(CORRELATE_REBUILD, Unit::Seconds, "How long a new leader took to rebuild");
    describe_counter!(RELAY_CHANGES, Unit::Count, "Changes of alerts sent to the alerts topic, by outcome");
    describe_gauge!(GEO_BUILT, Unit::Seconds, "When the GeoIP database in force was built");
}
