//! Messages as the consumer would hand them on, decoded.

use std::sync::Arc;

use inosec_ingest::{Decoder, Limits};
use inosec_schemas::{
    Batch, Catalog, Directory, EventIds, Message, Messages, Tenant, TenantId, TenantSource, TenantStatus,
    Tier, Topic,
};
use uuid::Uuid;

/// 2026-01-01: when every message arrives, in microseconds UTC.
pub const ARRIVED_AT: i64 = 1_767_225_600_000_000;

/// The defaults of the configuration.
pub const LIMITS: Limits = Limits {
    max_age_us: 30 * 24 * 3_600_000_000,
    max_skew_us: 3_600_000_000,
    max_message_bytes: 4 << 20,
    max_depth: 128,
};

/// One record of each kind of format: what was learnt from them must not change what others mean.
pub const SOUND: &[&str] = &[
    r#"{"host":"h","ts":"2026-01-01T00:00:00Z","format":"json","src":"s","event":{"message":"m","n":[1,{"a":null}]}}"#,
    r#"{"EventID":4624,"SourceName":"s","EventReceivedTime":"2026-01-01 00:00:00","Hostname":"h","Message":"a\r\nb"}"#,
    r#"{"message":"\nthe first line is empty","Message":"\r\n","event_code":1,"EventID":18446744073709551615}"#,
    r#"{"timestamp":"2026-01-01T10:16:40.480073+0000","event_type":"alert","src_ip":"1.2.3.4","alert":{"signature_id":1,"signature":"s","severity":1,"metadata":{"mitre_technique_id":["T1"]}}}"#,
    r#"{"signature":"s","severity":"high","detected_at":1767225600,"techniques":["T1","T2"],"payload":{"user":"u"}}"#,
    r#"{"hostname":"n","priority":"Notice","rule":"r","time":"2026-01-01T00:00:00Z","tags":["T1059"],"uuid":"00000000-0000-4000-8000-000000000001","output_fields":{"fd.cip":"1.2.3.4","user.name":null}}"#,
    r#"{"timestamp":"2026-01-01T00:00:00.000+0000","id":"1.2","rule":{"level":3,"description":"d","id":"1","mitre":{"id":["T1110"]}},"agent":{"id":"1","name":"a"},"manager":{"name":"m"},"data":{"srcip":"1.2.3.4"}}"#,
    r#"{"winlog":{"event_id":1116,"provider_name":"Microsoft-Windows-Windows Defender","event_data":{"Threat Name":"t","Severity ID":"5","Path":"p"}}}"#,
    "Mar 27 13:06:56 web1 sshd[1]: Failed password for root from 10.0.0.7 port 4022 ssh2",
    "type=SYSCALL msg=audit(1604996384.965:93777): arch=c000003e syscall=59 success=yes exe=2F62696E key=(null)",
];

/// A message to be decoded.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The value.
    pub value: &'a [u8],
    /// The header `inosec-format`.
    pub format: Option<&'a str>,
    /// The offset, from which ids are made.
    pub offset: i64,
}

/// A decoder and what it needs.
#[derive(Debug)]
pub struct Road {
    catalog: Catalog,
    decoder: Decoder,
    directory: Directory,
    tenant: TenantId,
}

impl Road {
    /// With the embedded descriptions.
    #[must_use]
    pub fn embedded() -> Self {
        Self::new(&Catalog::embedded().expect("the embedded descriptions are sound"))
    }

    /// With these descriptions, nothing learnt yet.
    #[must_use]
    pub fn new(catalog: &Catalog) -> Self {
        let tenant = TenantId(Uuid::from_u128(7));
        let mut directory = Directory { epoch: 1, ..Directory::default() };
        directory.tenants.insert(tenant, Tenant { tier: Tier::Standard, status: TenantStatus::Active });
        Self { decoder: Decoder::new(catalog, LIMITS), catalog: catalog.clone(), directory, tenant }
    }

    /// Decodes one batch of messages of a topic that feeds `stream` and has one tenant.
    pub fn decode(&mut self, stream: &str, sent: &[Sent<'_>]) -> Batch {
        let topic = Arc::new(Topic {
            cluster: "fuzz".to_owned(),
            name: stream.to_owned(),
            id: None,
            key: 1,
            stream: Arc::clone(&self.catalog.streams[stream]),
            tenant: TenantSource::Fixed(self.tenant),
            event_ids: EventIds::new("fuzz", stream, None),
        });
        let mut messages = Messages::new(topic);
        for Sent { value, format, offset } in sent {
            let message = Message {
                start: 0,
                end: 0,
                headers: (0, 0),
                partition: 0,
                offset: *offset,
                arrived_at: ARRIVED_AT,
                tombstone: false,
            };
            let header = format.map(|format| ("inosec-format", Some(format.as_bytes())));
            messages.push(message, value, header.as_slice());
        }
        self.decoder.decode(messages, &self.directory)
    }
}
