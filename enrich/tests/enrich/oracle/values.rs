//! What single values mean to the oracle: case, numbers, times, addresses.

use std::net::IpAddr;

use regex::Regex;

/// Case folded by way of the standard library's mappings, where those give one character.
pub fn fold(character: char) -> char {
    if character.is_ascii() || character == 'ı' {
        return character.to_ascii_lowercase();
    }
    let single =
        |mut mapped: Box<dyn Iterator<Item = char>>| mapped.next().filter(|_| mapped.next().is_none());
    let upper = single(Box::new(character.to_uppercase())).unwrap_or(character);
    single(Box::new(upper.to_lowercase())).unwrap_or(upper)
}

/// Whether a text is a number that compares so.
pub fn compare(comparison: &str, text: &str, number: &str) -> bool {
    let shape = |text: &str| {
        let text = text.strip_prefix('-').unwrap_or(text);
        let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        [whole, fraction, exponent]
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|one| one.is_ascii_digit()))
    };
    if !shape(text) {
        return false;
    }
    let order = match (text.parse::<i128>(), number.parse::<i128>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        _ => match text.parse::<f64>().unwrap().partial_cmp(&number.parse().unwrap()) {
            Some(order) => order,
            None => return false,
        },
    };
    match comparison {
        "lt" => order.is_lt(),
        "lte" => order.is_le(),
        "gt" => order.is_gt(),
        "gte" => order.is_ge(),
        _ => order.is_eq(),
    }
}

/// A part of a time.
pub fn time(part: &str, text: &str) -> Option<i64> {
    let form = Regex::new(r"^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d))?").unwrap();
    let found = form.captures(text)?;
    let number = |group: usize| found.get(group).map(|digits| digits.as_str().parse::<i64>().unwrap());
    let date = jiff::civil::Date::new(number(1)? as i16, number(2)? as i8, number(3)? as i8).ok()?;
    match part {
        "year" => number(1),
        "month" => number(2),
        "day" => number(3),
        "week" => Some(i64::from(date.iso_week_date().week())),
        "hour" => number(4).filter(|hour| *hour < 24).filter(|_| number(5).is_some_and(|minute| minute < 60)),
        _ => number(5).filter(|minute| *minute < 60).filter(|_| number(4).is_some_and(|hour| hour < 24)),
    }
}

/// Whether a text is an address whose leading bits are the network's.
pub fn inside(text: &str, network: IpAddr, bits: u32) -> bool {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let inner = inner.split('%').next().unwrap();
    let address: Option<IpAddr> =
        text.parse().ok().or_else(|| inner.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6));
    let binary = |address: IpAddr| -> String {
        match address {
            IpAddr::V4(address) => address.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
            IpAddr::V6(address) => address.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
        }
    };
    let Some(mut address) = address else { return false };
    if let (IpAddr::V6(mapped), true) = (address, network.is_ipv4()) {
        let Some(mapped) = mapped.to_ipv4_mapped() else { return false };
        address = IpAddr::V4(mapped);
    }
    address.is_ipv4() == network.is_ipv4()
        && binary(address)[..bits as usize] == binary(network)[..bits as usize]
}
