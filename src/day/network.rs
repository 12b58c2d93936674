//! What a Suricata sensor writes: EVE records of flows, look-ups, requests, and alerts.

use super::Scene;
use super::clock::Stamp;
use super::vocabulary::DOMAINS;
use super::world::Host;
use super::write::{Object, hex};

/// A signature that fired.
#[derive(Debug)]
pub struct Signature {
    /// Its number.
    pub id: u64,
    /// Its text.
    pub text: &'static str,
    /// Its category.
    pub category: &'static str,
    /// 1 is the gravest.
    pub severity: u64,
}

const fn signature(id: u64, severity: u64, category: &'static str, text: &'static str) -> Signature {
    Signature { id, text, category, severity }
}

/// Signatures that fire on an ordinary day.
const EVERYDAY: &[Signature] = &[
    signature(9_000_101, 3, "Not Suspicious Traffic", "INFO update client asks for a package list"),
    signature(9_000_102, 3, "Misc activity", "INFO look-up of a dynamic DNS name"),
    signature(9_000_103, 2, "Attempted Information Leak", "SCAN several SSH connections from one address"),
    signature(9_000_104, 2, "Potentially Bad Traffic", "POLICY clear-text password to an internal server"),
    signature(9_000_105, 3, "Generic Protocol Command Decode", "STREAM packet outside the window"),
];
/// The intrusion's connections to its control server.
pub const BEACON: Signature = signature(
    9_000_201,
    1,
    "A Network Trojan was detected",
    "MALWARE beacon to a control server, fixed interval",
);
/// A program fetched by PowerShell.
pub const DOWNLOAD: Signature = signature(
    9_000_202,
    1,
    "Potential Corporate Privacy Violation",
    "MALWARE executable fetched by a script host",
);
/// A service control pipe used from a workstation.
pub const REMOTE_SERVICE: Signature =
    signature(9_000_203, 2, "Potentially Bad Traffic", "LATERAL remote service creation over SMB");

/// Who talks to whom.
#[derive(Debug)]
pub struct Flow<'a> {
    /// Client.
    pub from: &'a str,
    /// Its port.
    pub from_port: u64,
    /// Server.
    pub to: &'a str,
    /// Its port.
    pub to_port: u64,
    /// Name the client asked for.
    pub name: &'a str,
}

/// Appends one record of an ordinary day; true if it is an alert.
pub fn everyday(scene: &mut Scene<'_>, out: &mut Vec<u8>) -> bool {
    const KINDS: &[(u32, &str)] =
        &[(34, "flow"), (30, "dns"), (14, "tls"), (10, "http"), (7, "fileinfo"), (5, "alert")];
    let kind = *scene.random.weighted(KINDS);
    let (name, address) = *scene.random.one(DOMAINS);
    let network = scene.network;
    let client: &Host = scene.random.one(&network.hosts);
    let to = if kind == "dns" { ("10.10.0.2", 53) } else { (address, if kind == "http" { 80 } else { 443 }) };
    let from_port = scene.random.between(49_152, 65_535);
    let flow = Flow { from: &client.address, from_port, to: to.0, to_port: to.1, name };
    match kind {
        "alert" => {
            let signature = scene.random.one(EVERYDAY);
            alert(scene, out, &flow, signature);
        }
        kind => telemetry(scene, out, &flow, kind),
    }
    kind == "alert"
}

/// Appends an alert.
pub fn alert(scene: &mut Scene<'_>, out: &mut Vec<u8>, flow: &Flow<'_>, signature: &Signature) {
    let mut record = begin(scene, out, flow, "alert", "TCP");
    record.object("alert", |alert| {
        alert.text("action", "allowed").number("gid", 1).number("signature_id", signature.id);
        alert.number("rev", 3).text("signature", signature.text).text("category", signature.category);
        alert.number("severity", signature.severity);
        alert.json(
            "metadata",
            r#"{"confidence":["Medium"],"created_at":["2026_03_02"],"deployment":["Perimeter"]}"#,
        );
    });
    record.text("app_proto", "http");
    record.object("http", |http| request(http, flow));
    let at = scene.at;
    record.object("flow", |inner| counters(inner, &at, scene.random.between(3, 60)));
    record.close();
}

/// Appends a record that is no alert.
pub fn telemetry(scene: &mut Scene<'_>, out: &mut Vec<u8>, flow: &Flow<'_>, kind: &str) {
    let protocol = if kind == "dns" { "UDP" } else { "TCP" };
    let (size, packets, id) =
        (scene.random.between(300, 90_000), scene.random.between(3, 400), scene.random.bits());
    let at = scene.at;
    let mut record = begin(scene, out, flow, kind, protocol);
    match kind {
        "dns" => {
            record.object("dns", |dns| {
                dns.number("version", 2).text("type", "answer").number("id", id & 0xffff);
                dns.text("flags", "8180").json("qr", "true").json("rd", "true").json("ra", "true");
                dns.text("rrname", flow.name).text("rrtype", "A").text("rcode", "NOERROR");
                dns.json("answers", "[]").object("grouped", |grouped| {
                    grouped.json("A", r#"["198.51.100.14","198.51.100.15"]"#);
                });
            });
        }
        "tls" => {
            record.object("tls", |tls| {
                tls.text("subject", "CN=edge")
                    .text("issuerdn", "C=NO, O=Example Trust, CN=Example Issuing CA 3");
                tls.quoted("serial", |out| hex(out, id, 16));
                tls.text("sni", flow.name).text("version", "TLS 1.3");
                tls.text("notbefore", "2026-01-04T00:00:00").text("notafter", "2027-01-04T23:59:59");
                tls.object("ja3", |ja3| {
                    ja3.quoted("hash", |out| {
                        hex(out, id.rotate_left(7), 16);
                        hex(out, id.rotate_left(29), 16);
                    });
                });
            });
        }
        "http" => {
            record.object("http", |http| request(http, flow));
        }
        "fileinfo" => {
            record.object("http", |http| request(http, flow)).text("app_proto", "http");
            record.object("fileinfo", |file| {
                file.text("filename", "/v2/packages/index.json").json("gaps", "false");
                file.text("state", "CLOSED").json("stored", "false").number("size", size).number("tx_id", 0);
            });
        }
        _ => {
            record.text("app_proto", "tls").object("flow", |inner| counters(inner, &at, packets));
            record.json("tcp", r#"{"tcp_flags":"1b","tcp_flags_ts":"1b","tcp_flags_tc":"1b","syn":true,"fin":true,"psh":true,"ack":true,"state":"closed"}"#);
        }
    }
    record.close();
}

fn begin<'a>(
    scene: &mut Scene<'_>,
    out: &'a mut Vec<u8>,
    flow: &Flow<'_>,
    kind: &str,
    protocol: &str,
) -> Object<'a> {
    let mut record = Object::open(out);
    record.time("timestamp", &scene.at, Stamp::eve);
    record.number("flow_id", scene.random.bits() >> 12).text("in_iface", "eth1").text("event_type", kind);
    record.text("src_ip", flow.from).number("src_port", flow.from_port);
    record.text("dest_ip", flow.to).number("dest_port", flow.to_port).text("proto", protocol);
    record.text("host", &scene.host.name).text("community_id", "1:Xk0S1mM2m1o6kq0Yc4aH3wJ8p2E=");
    record
}

fn request(http: &mut Object<'_>, flow: &Flow<'_>) {
    http.text("hostname", flow.name).text("url", "/v2/packages/index.json?channel=stable");
    http.text("http_user_agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Fleet/4.2");
    http.text("http_content_type", "application/json").text("http_method", "GET");
    http.text("protocol", "HTTP/1.1").number("status", 200).number("length", 1841);
}

fn counters(flow: &mut Object<'_>, at: &Stamp, packets: u64) {
    flow.number("pkts_toserver", packets).number("pkts_toclient", packets + 3);
    flow.number("bytes_toserver", packets * 131).number("bytes_toclient", packets * 944);
    flow.time("start", &at.later(-1_700_000), Stamp::eve).time("end", at, Stamp::eve);
    flow.number("age", 1).text("state", "closed").text("reason", "timeout").json("alerted", "false");
}
