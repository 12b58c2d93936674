//! What a phase used: wall time, and CPU time of every process that has a part in it, their reaped
//! children included (PostgreSQL forks a backend per connection).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of this process, without children.
pub fn process_cpu() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec, and gets a valid one. /proc would be as of the last tick.
    #[allow(unsafe_code)]
    let result = unsafe { libc::clock_gettime(id, &raw mut time) };
    debug_assert_eq!(result, 0, "these clocks exist since Linux 2.6.12");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Whose CPU time is told apart. A server on another machine is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parties {
    pub postgres: Option<u32>,
    pub kafka: Option<u32>,
    /// The process under test, if it isn't this one.
    pub contender: Option<u32>,
    /// A second one.
    pub second: Option<u32>,
}

/// A moment's readings; subtract two for a [`Usage`].
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    at: Instant,
    bench: f64,
    contender: f64,
    postgres: Option<f64>,
    kafka: Option<f64>,
    machine: f64,
}

/// What was used between two readings, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Usage {
    pub seconds: f64,
    /// This process: the client of the raw limits.
    pub bench_cpu: f64,
    /// inosec, or a rival.
    pub contender_cpu: f64,
    pub postgres_cpu: Option<f64>,
    pub kafka_cpu: Option<f64>,
    /// The share of the machine's CPU time that went elsewhere: above a few per cent the wall times of
    /// the phase were disturbed.
    pub foreign_share: f64,
}

impl Parties {
    pub fn read(&self) -> Reading {
        let processes = processes();
        let tree = |pid: Option<u32>| pid.map(|pid| tree_cpu(&processes, pid));
        Reading {
            at: Instant::now(),
            bench: process_cpu().as_secs_f64(),
            contender: tree(self.contender).unwrap_or(0.0) + tree(self.second).unwrap_or(0.0),
            postgres: tree(self.postgres),
            kafka: tree(self.kafka),
            machine: machine_cpu(),
        }
    }

    pub fn since(&self, start: &Reading) -> Usage {
        let end = self.read();
        let seconds = (end.at - start.at).as_secs_f64();
        let both = |end: Option<f64>, start: Option<f64>| Some(end? - start?);
        let mut usage = Usage {
            seconds,
            bench_cpu: end.bench - start.bench,
            contender_cpu: end.contender - start.contender,
            postgres_cpu: both(end.postgres, start.postgres),
            kafka_cpu: both(end.kafka, start.kafka),
            foreign_share: 0.0,
        };
        let ours = usage.bench_cpu
            + usage.contender_cpu
            + usage.postgres_cpu.unwrap_or(0.0)
            + usage.kafka_cpu.unwrap_or(0.0);
        let whole = seconds * cores() as f64;
        usage.foreign_share = ((end.machine - start.machine - ours) / whole).max(0.0);
        usage
    }
}

/// CPU seconds of one process alone, 0 if it isn't here.
pub fn own_cpu(pid: u32) -> f64 {
    let ticks: Option<u64> = fields(pid).and_then(|fields| Some(fields.get(11..13)?.iter().sum()));
    ticks.map_or(0.0, |ticks| ticks as f64 / ticks_per_second())
}

/// How many cores this machine has.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The resident memory's peak of a process, in bytes.
pub fn peak_memory(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

/// This process' resident memory, in bytes.
pub fn resident() -> u64 {
    memory(std::process::id(), "VmRSS:").unwrap_or_default()
}

fn memory(pid: u32, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The process that listens on this port of the loopback interface; root sees everybody's.
pub fn listener(port: u16) -> Option<u32> {
    let inodes: Vec<String> = ["tcp", "tcp6"].iter().flat_map(|table| listening(table, port)).collect();
    let mut owners: Vec<u32> = pids().filter(|pid| owns(*pid, &inodes)).collect();
    // Backends inherit the socket; the postmaster came first.
    owners.sort_by_key(|pid| start_time(*pid));
    owners.first().copied()
}

fn listening(table: &str, port: u16) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let ours = |line: &&str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1).and_then(|address| address.rsplit_once(':'));
        local.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port)) && fields.nth(1) == Some("0A")
    };
    let inode = |line: &str| Some(format!("socket:[{}]", line.split_whitespace().nth(9)?));
    text.lines().filter(ours).filter_map(inode).collect()
}

fn owns(pid: u32, inodes: &[String]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let link = |entry: std::fs::DirEntry| std::fs::read_link(entry.path()).ok();
    let mut links = descriptors.flatten().filter_map(link);
    links.any(|link| link.to_str().is_some_and(|link| inodes.iter().any(|inode| inode == link)))
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process: its parent, and its CPU seconds with those of its reaped children.
type Processes = HashMap<u32, (u32, f64)>;

fn processes() -> Processes {
    pids().filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// proc_pid_stat(5): the fields after the name, which may hold anything up to the last parenthesis.
fn fields(pid: u32) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit_once(')')?.1;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

fn stat(pid: u32) -> Option<(u32, f64)> {
    let fields = fields(pid)?;
    // Field 3 of the manual is index 0: ppid is 4, utime to cstime are 14 to 17.
    let ticks: u64 = fields.get(11..15)?.iter().sum();
    Some((u32::try_from(*fields.get(1)?).ok()?, ticks as f64 / ticks_per_second()))
}

fn start_time(pid: u32) -> u64 {
    fields(pid).and_then(|fields| fields.get(19).copied()).unwrap_or(u64::MAX)
}

fn tree_cpu(processes: &Processes, root: u32) -> f64 {
    let own = processes.get(&root).map_or(0.0, |(_, cpu)| *cpu);
    let children = processes.iter().filter(|(_, (parent, _))| *parent == root);
    own + children.map(|(child, _)| tree_cpu(processes, *child)).sum::<f64>()
}

/// CPU seconds of the whole machine: everything in proc_stat(5) but idle and iowait.
fn machine_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    // user nice system idle iowait irq softirq steal; guest time is inside user.
    let busy = ticks.iter().take(8).sum::<u64>() - ticks.iter().skip(3).take(2).sum::<u64>();
    busy as f64 / ticks_per_second()
}

fn ticks_per_second() -> f64 {
    // SAFETY: sysconf(3) has no preconditions.
    #[allow(unsafe_code)]
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_s_time_is_that_of_all_its_members() {
        let processes =
            Processes::from([(1, (0, 9.0)), (5, (1, 1.5)), (6, (5, 2.0)), (7, (6, 0.25)), (8, (1, 4.0))]);
        assert_eq!(tree_cpu(&processes, 5), 3.75);
        assert_eq!(tree_cpu(&processes, 99), 0.0);
    }

    #[test]
    fn the_listener_on_a_port_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        assert_eq!(listener(port), Some(std::process::id()));
    }
}
