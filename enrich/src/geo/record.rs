//! What of a record is wanted, whoever made the database.

use maxminddb::{LookupResult, MaxMindDbError, PathElement, path};
use serde::Deserialize;

use super::Subject;

type Network<'a> = LookupResult<'a, &'a [u8]>;

/// What a network's record says of a subject: an AS number, or the two letters of a country as the
/// lower half of a number; 0 if nothing.
pub fn value(network: &Network<'_>, subject: Subject) -> Result<u32, MaxMindDbError> {
    match subject {
        Subject::Country => country(network),
        Subject::Asn => asn(network),
    }
}

/// Where the address is, not where its owner is registered (`registered_country`): that would be a
/// guess, and look-ups elsewhere make none either.
fn country(network: &Network<'_>) -> Result<u32, MaxMindDbError> {
    // GeoLite2, GeoIP2, DB-IP; IPinfo's newer databases; IPinfo's older ones.
    let text: Option<&str> = match member(network, &path!["country", "iso_code"])? {
        Some(text) => Some(text),
        None => match member(network, &path!["country_code"])? {
            Some(text) => Some(text),
            None => member(network, &path!["country"])?,
        },
    };
    Ok(text.map_or(0, code))
}

fn asn(network: &Network<'_>) -> Result<u32, MaxMindDbError> {
    if let Some(number) = member(network, &path!["autonomous_system_number"])? {
        return Ok(number);
    }
    // IPinfo writes `AS15169`.
    let text: Option<&str> = member(network, &path!["asn"])?;
    Ok(text.and_then(|text| text.trim_start_matches("AS").parse().ok()).unwrap_or(0))
}

/// A member of a record. One of another type than expected is none: only bytes that can't be read
/// are an error.
fn member<'a, T: Deserialize<'a>>(
    network: &Network<'a>,
    path: &[PathElement<'_>],
) -> Result<Option<T>, MaxMindDbError> {
    match network.decode_path(path) {
        Err(MaxMindDbError::Decoding { .. }) => Ok(None),
        found => found,
    }
}

/// Two letters, in upper case.
fn code(text: &str) -> u32 {
    match text.as_bytes() {
        [first, second] if first.is_ascii_alphabetic() && second.is_ascii_alphabetic() => {
            u32::from_be_bytes([0, 0, first.to_ascii_uppercase(), second.to_ascii_uppercase()])
        }
        _ => 0,
    }
}
