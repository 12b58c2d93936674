//! Lines of text: syslog (RFC 3164) and the Linux audit log.

use std::io::Write as _;

use super::Scene;
use super::clock::Stamp;
use super::write::decimal;

/// Appends one syslog line of an ordinary day.
pub fn syslog(scene: &mut Scene<'_>, out: &mut Vec<u8>) {
    let process = scene.random.between(400, 32_000);
    let port = scene.random.between(32_768, 61_000);
    let session = scene.random.between(1, 4000);
    let outside = format!("203.0.113.{}", scene.random.between(2, 250));
    let user = &scene.host.user;
    let address = &scene.host.address;
    header(scene, out);
    let written = match scene.random.below(12) {
        0 => write!(
            out,
            "sshd[{process}]: Accepted publickey for {user} from {address} port {port} ssh2: ED25519 SHA256:q2b0VYb3u0V5hJc1m8WwTn7Xr4kdLZf9sEgPaQy6oHc"
        ),
        1 => {
            write!(out, "sshd[{process}]: pam_unix(sshd:session): session opened for user {user} by (uid=0)")
        }
        2 => write!(out, "sshd[{process}]: Disconnected from {address} port {port}"),
        3..=5 => write!(
            out,
            "sshd[{process}]: Failed password for invalid user admin from {outside} port {port} ssh2"
        ),
        6 => write!(
            out,
            "sshd[{process}]: Received disconnect from {outside} port {port}:11: Bye Bye [preauth]"
        ),
        7 => write!(
            out,
            "sudo:   {user} : TTY=pts/0 ; PWD=/srv/app ; USER=root ; COMMAND=/usr/bin/systemctl reload nginx"
        ),
        8 => write!(out, "CRON[{process}]: pam_unix(cron:session): session opened for user root by (uid=0)"),
        9 => write!(out, "CRON[{process}]: (root) CMD (   cd / && run-parts --report /etc/cron.hourly)"),
        10 => write!(out, "systemd-logind[612]: New session {session} of user {user}."),
        _ => write!(
            out,
            "kernel: [{port}.{process:06}] nft drop in: IN=eth0 OUT= SRC={outside} DST={address} LEN=44 TTL=241 PROTO=TCP SPT={port} DPT=23 SYN"
        ),
    };
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

/// Time and host, as every syslog line begins; about half the servers also send the priority.
pub fn header(scene: &Scene<'_>, out: &mut Vec<u8>) {
    if scene.host.guid.is_multiple_of(2) {
        out.extend_from_slice(b"<86>");
    }
    scene.at.syslog(out);
    out.push(b' ');
    out.extend_from_slice(scene.host.name.as_bytes());
    out.push(b' ');
}

/// Appends one line of the audit log.
pub fn auditd(scene: &mut Scene<'_>, out: &mut Vec<u8>) {
    const COMMANDS: &[(&str, &str)] = &[
        ("systemctl", "/usr/bin/systemctl"),
        ("curl", "/usr/bin/curl"),
        ("apt-get", "/usr/bin/apt-get"),
        ("tar", "/usr/bin/tar"),
        ("ps", "/usr/bin/ps"),
    ];
    let (command, path) = *scene.random.one(COMMANDS);
    let process = scene.random.between(400, 32_000);
    let parent = scene.random.between(400, 32_000);
    let session = scene.random.between(1, 900);
    let serial = scene.random.between(1000, 900_000);
    let kind = scene.random.below(4);
    let address = &scene.host.address;
    let mut line = |name: &str, rest: std::fmt::Arguments<'_>| {
        out.extend_from_slice(b"type=");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b" msg=audit(");
        Stamp::epoch_millis(&scene.at, out);
        out.push(b':');
        decimal(out, serial);
        out.extend_from_slice(b"): ");
        let written = out.write_fmt(rest);
        debug_assert!(written.is_ok(), "a Vec takes everything");
    };
    match kind {
        0 | 1 => line(
            "SYSCALL",
            format_args!(
                "arch=c000003e syscall=59 success=yes exit=0 a0=55d0a1c2 a1=55d0a1f8 a2=55d09ee0 a3=8 items=2 ppid={parent} pid={process} auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts0 ses={session} comm=\"{command}\" exe=\"{path}\" key=\"exec\""
            ),
        ),
        2 => line(
            "USER_LOGIN",
            format_args!(
                "pid={process} uid=0 auid=1000 ses={session} msg='op=login id=1000 exe=\"/usr/sbin/sshd\" hostname=? addr={address} terminal=/dev/pts/0 res=success'"
            ),
        ),
        _ => line("EXECVE", format_args!("argc=2 a0=\"{command}\" a1=\"--quiet\"")),
    }
}
