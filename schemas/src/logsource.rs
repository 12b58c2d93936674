//! Where an event comes from in Sigma's words, and where its fields lie: a format's `[sigma]` section.
//!
//! An event is classified by look-ups of its own values. What no look-up knows has no class, and on an
//! event without a class no rule runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::{Path, Source};
use crate::{FieldNames, Wanted};

/// What is known of where an event comes from.
///
/// Usually one category and one service; an event may belong to several (a registry value that is set
/// is both `registry_set` and `registry_event`). Names are lower case as in rules, and always listed in the same
/// order: two orders are two classes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct EventClass {
    /// Such as `windows`.
    pub product: Option<String>,
    /// Such as `process_creation`.
    pub categories: Vec<String>,
    /// Such as `sysmon`.
    pub services: Vec<String>,
}

impl EventClass {
    /// One product, category and service, where there is one.
    #[must_use]
    pub fn triple(product: Option<&str>, category: Option<&str>, service: Option<&str>) -> Self {
        let owned = |name: Option<&str>| name.map(str::to_owned);
        Self {
            product: owned(product),
            categories: owned(category).into_iter().collect(),
            services: owned(service).into_iter().collect(),
        }
    }
}

impl std::fmt::Display for EventClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let product = self.product.as_deref().unwrap_or("-");
        let names = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join("+") };
        write!(f, "{product}/{}/{}", names(&self.categories), names(&self.services))
    }
}

/// What detection looks at, class by class: the plain form in which decode is told of it.
#[derive(Debug, Clone, Default)]
pub struct ClassFields {
    /// The names of the fields.
    pub names: FieldNames,
    /// The classes, and which of the fields are looked at in each.
    pub classes: Vec<(EventClass, Wanted)>,
}

/// How the records of a format are classified, and where Sigma's fields lie in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSources {
    /// Gives the product; without one an event has no class.
    pub product: Source,
    /// Gives the categories, separated by spaces.
    pub category: Source,
    /// Gives the services, separated by spaces.
    pub service: Source,
    /// Objects in which fields lie, best first; a part `*` is any member. The record itself comes last.
    pub objects: Vec<Path>,
    /// Sigma's field to where it lies, if that is not under its own name; the first that is there wins.
    pub fields: BTreeMap<String, Vec<Path>>,
}

impl LogSources {
    /// The class of an event whose key to each look-up is given, in lower case.
    #[must_use]
    pub fn class(&self, product: &str, category: &str, service: &str) -> Option<EventClass> {
        let product = look_up(&self.product, &[product])?;
        Some(EventClass {
            product: Some(product.to_owned()),
            categories: names(look_up(&self.category, &[category])),
            services: names(look_up(&self.service, &[service])),
        })
    }

    /// Every class that records of the format can have.
    ///
    /// A key of fewer parts must be the beginning of a longer one: of `channel/event id` the service's key
    /// is `channel`.
    #[must_use]
    pub fn classes(&self) -> BTreeSet<EventClass> {
        let mut classes = BTreeSet::new();
        let sources = [&self.product, &self.category, &self.service];
        let keys = sources.iter().filter_map(|source| match source {
            Source::Lookup { map, .. } => Some(map.keys().map(String::as_str)),
            Source::First(_) | Source::Members(_) | Source::Id(_) => None,
        });
        for key in keys.flatten().chain([""]) {
            let beginnings: Vec<&str> =
                std::iter::successors(Some(key), |key| key.rsplit_once('/').map(|(start, _)| start))
                    .collect();
            let Some(product) = look_up(&self.product, &beginnings) else { continue };
            classes.insert(EventClass {
                product: Some(product.to_owned()),
                categories: names(look_up(&self.category, &beginnings[..1])),
                services: names(look_up(&self.service, &beginnings)),
            });
        }
        classes
    }
}

/// What the first key that is known gives.
fn look_up<'a>(source: &'a Source, keys: &[&str]) -> Option<&'a str> {
    match source {
        Source::Lookup { map, default, .. } => {
            keys.iter().find_map(|key| map.get(*key)).or(default.as_ref()).map(String::as_str)
        }
        Source::First(_) | Source::Members(_) | Source::Id(_) => None,
    }
}

fn names(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use crate::{Catalog, EventClass};

    fn class(format: &str, keys: [&str; 3]) -> Option<String> {
        let catalog = Catalog::embedded().unwrap();
        let format = catalog.formats.iter().find(|known| known.name == format).unwrap();
        let [product, category, service] = keys;
        format.sigma.as_ref()?.class(product, category, service).map(|class| class.to_string())
    }

    #[test]
    fn windows_events_by_channel_and_event_id() {
        let sysmon = "microsoft-windows-sysmon/operational";
        for format in ["winlog-nxlog", "winlog-wef", "winlog-beats6", "winlog-beats7", "evtx-json"] {
            for (id, category) in [
                ("1", "process_creation"),
                ("13", "registry_set+registry_event"),
                ("12", "registry_add+registry_delete+registry_event"),
                ("18", "pipe_created"),
                ("99", "-"),
            ] {
                let found = class(format, ["", &format!("{sysmon}/{id}"), sysmon]);
                assert_eq!(found, Some(format!("windows/{category}/sysmon")), "{format}");
            }
            assert_eq!(class(format, ["", "security/1", "security"]).unwrap(), "windows/-/security");
            assert_eq!(class(format, ["", "x/1", "x"]).unwrap(), "windows/-/-");
        }
    }

    #[test]
    fn other_formats() {
        assert_eq!(class("syslog-3164", ["", "", "cron"]).unwrap(), "linux/-/cron");
        assert_eq!(class("syslog-3164", ["", "", "usermod"]).unwrap(), "linux/-/auth");
        assert_eq!(class("auditd", ["", "", ""]).unwrap(), "linux/-/auditd");
        assert_eq!(class("cloudtrail", ["", "", ""]).unwrap(), "aws/-/cloudtrail");
        assert_eq!(class("suricata-eve", ["", "", "dns"]).unwrap(), "suricata/-/dns");
        assert_eq!(class("winlog-flat", ["", "", ""]).unwrap(), "windows/-/sysmon");
        assert_eq!(
            class("ecs", ["windows", "windows/process/start", ""]).unwrap(),
            "windows/process_creation/-"
        );
        assert_eq!(class("ecs", ["", "", ""]), None);
        assert_eq!(class("json", ["", "", ""]), None);
        assert_eq!(class("ocsf", ["", "", ""]), None);
    }

    #[test]
    fn every_class_an_event_can_have_is_listed() {
        let classes = Catalog::embedded().unwrap().classes();
        for (product, category, service) in [
            ("windows", Some("process_creation"), Some("sysmon")),
            ("windows", None, Some("security")),
            ("windows", None, None),
            ("windows", Some("ps_script"), Some("powershell")),
            ("linux", Some("process_creation"), None),
            ("linux", None, Some("sshd")),
            ("aws", None, Some("cloudtrail")),
            ("suricata", None, Some("tls")),
        ] {
            let class = EventClass::triple(Some(product), category, service);
            assert!(classes.contains(&class), "{class}");
        }
    }
}
