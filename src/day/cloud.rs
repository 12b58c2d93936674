//! What AWS CloudTrail records.

use super::Scene;
use super::clock::Stamp;
use super::write::Object;

/// Service, call, whether it only reads, and its parameters.
const CALLS: &[(&str, &str, bool, &str)] = &[
    (
        "s3.amazonaws.com",
        "ListObjects",
        true,
        r#"{"bucketName":"finance-exports","Host":"finance-exports.s3.eu-north-1.amazonaws.com","prefix":"2026/11/"}"#,
    ),
    (
        "s3.amazonaws.com",
        "PutObject",
        false,
        r#"{"bucketName":"backup-nightly","key":"db/2026-11-20.dump.zst","x-amz-server-side-encryption":"aws:kms"}"#,
    ),
    (
        "ec2.amazonaws.com",
        "DescribeInstances",
        true,
        r#"{"instancesSet":{},"filterSet":{"items":[{"name":"instance-state-name","valueSet":{"items":[{"value":"running"}]}}]}}"#,
    ),
    (
        "sts.amazonaws.com",
        "AssumeRole",
        true,
        r#"{"roleArn":"arn:aws:iam::111122223333:role/deploy","roleSessionName":"pipeline","durationSeconds":3600}"#,
    ),
    ("iam.amazonaws.com", "ListUsers", true, "null"),
    (
        "kms.amazonaws.com",
        "Decrypt",
        true,
        r#"{"encryptionAlgorithm":"SYMMETRIC_DEFAULT","encryptionContext":{"aws:s3:arn":"arn:aws:s3:::backup-nightly"}}"#,
    ),
    ("signin.amazonaws.com", "ConsoleLogin", false, "null"),
];

/// Appends one record.
pub fn cloudtrail(scene: &mut Scene<'_>, out: &mut Vec<u8>) {
    let (service, call, reads, parameters) = *scene.random.one(CALLS);
    let (request, event, random) = (scene.random.uuid(), scene.random.uuid(), scene.random.bits() % 250);
    let user = &scene.host.user;
    let mut record = Object::open(out);
    record.text("eventVersion", "1.08").object("userIdentity", |identity| {
        identity.text("type", "IAMUser").text("principalId", "AIDAEXAMPLE0000000001");
        identity.text("arn", &format!("arn:aws:iam::111122223333:user/{user}"));
        identity.text("accountId", "111122223333").text("accessKeyId", "AKIAEXAMPLE000000001");
        identity.text("userName", user).object("sessionContext", |context| {
            context.json("sessionIssuer", "{}").object("attributes", |attributes| {
                attributes.time("creationDate", &scene.at.later(-900_000_000), Stamp::rfc3339_seconds);
                attributes.text("mfaAuthenticated", "true");
            });
        });
    });
    record.time("eventTime", &scene.at, Stamp::rfc3339_seconds).text("eventSource", service);
    record.text("eventName", call).text("awsRegion", "eu-north-1");
    record.text("sourceIPAddress", &format!("192.0.2.{}", 1 + random));
    record.text(
        "userAgent",
        "aws-cli/2.17.9 md/awscrt#0.20 ua/2.0 os/linux#6.1 md/arch#x86_64 lang/python#3.11",
    );
    record.json("requestParameters", parameters);
    record.json(
        "responseElements",
        if call == "ConsoleLogin" { r#"{"ConsoleLogin":"Success"}"# } else { "null" },
    );
    record.json("additionalEventData", r#"{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":0,"AuthenticationMethod":"AuthHeader","bytesTransferredOut":375}"#);
    record.text("requestID", &request.to_string()).text("eventID", &event.to_string());
    record.json("readOnly", if reads { "true" } else { "false" }).text("eventType", "AwsApiCall");
    record.json("managementEvent", "true").text("recipientAccountId", "111122223333");
    record.text("eventCategory", "Management");
    record.json(
        "tlsDetails",
        r#"{"tlsVersion":"TLSv1.3","clientProvidedHostHeader":"api.eu-north-1.amazonaws.com"}"#,
    );
    record.close();
}
