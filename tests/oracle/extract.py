#!/usr/bin/env python3
"""The slow, independent reading of messages: what columns of agent_logs should hold.

    extract.py SCHEMAS [ARRIVED_AT_MICROSECONDS] < messages.ndjson > expected.ndjson

Reads the same descriptions as inosec (SCHEMAS is the folder `schemas`) and shares no code with it.
One line in, one line out: every column that the message fills, `format`, and `event_time` in
microseconds UTC; null where the message says nothing that fits. Columns of kind json, text_list and
bytes are left out. ARRIVED_AT (default: 2026-01-01) gives the year of times that leave it out.

Choices beyond the descriptions' own words:

* A path means nested members; failing that (absent, null, "", "-") one member of the record with the
  whole dotted name. Of repeated members the last counts, before anything else is decided.
* The first path that says something decides. Is it of the wrong kind, the column is null, and the
  paths behind it are not asked.
* Without a value, class_uid and severity_id are 0 (OCSF's base event and unknown).
* In a look-up's key an object or array counts as the empty text.
* An IPv4-mapped address is written ::ffff:192.0.2.1, as PostgreSQL does.
* Leap seconds count as second 59; a calendar date without a time is midnight UTC.
"""

import datetime
import ipaddress
import json
import pathlib
import re
import sys
import tomllib

STREAM = "agent_logs"
SECOND = 1_000_000
DAY = 86_400 * SECOND
RANGES = {"int16": 1 << 15, "int32": 1 << 31, "int64": 1 << 63}
MONTHS = {name: at for at, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
FACILITIES = """kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock
local0 local1 local2 local3 local4 local5 local6 local7""".split()
SEVERITIES = "emerg alert crit err warning notice info debug".split()


class Number(str):
    """A JSON number as it is written."""


class Misfit(Exception):
    """A value that its column can't hold."""


# --- descriptions ---------------------------------------------------------------------------------


def plain(value):
    """A TOML value as the text it stands for."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def lower(text):
    """ASCII lower case, and nothing more."""
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


class Format:
    def __init__(self, raw, maps):
        self.name = raw["name"]
        self.names = [raw["name"], *raw.get("aliases", [])]
        self.shape = raw["shape"]
        self.priority = raw["priority"]
        self.recognise = raw.get("recognise")
        mapping = raw["streams"].get(STREAM)
        self.feeds = mapping is not None
        self.when = mapping.get("when", {}) if mapping else {}
        self.columns = {name: self.source(source, maps) for name, source in mapping["columns"].items()} if mapping else {}

    @staticmethod
    def source(raw, maps):
        paths = lambda part: [part] if isinstance(part, str) else part
        if not isinstance(raw, dict):
            return ("first", paths(raw))
        if "always" in raw:
            return ("lookup", [], {}, plain(raw["always"]))
        table = maps[raw["map"]] if isinstance(raw["map"], str) else raw["map"]
        table = {lower(key): plain(value) for key, value in table.items()}
        default = plain(raw["default"]) if "default" in raw else None
        return ("lookup", [paths(part) for part in raw["key"]], table, default)


class Descriptions:
    def __init__(self, folder):
        read = lambda file: tomllib.loads(file.read_text(encoding="utf-8"))
        maps = {file.stem: read(file) for file in (folder / "formats" / "maps").glob("*.toml")}
        formats = [Format(read(file), maps) for file in (folder / "formats").glob("*.toml")]
        self.formats = sorted((f for f in formats if f.feeds), key=lambda f: (f.priority, f.name))
        self.names = {name: f for f in self.formats for name in f.names}
        columns = read(folder / "streams" / f"{STREAM}.toml")["columns"]
        self.time = next(c["name"] for c in columns if c.get("fill") == "event_time")
        skipped = ("json", "text_list", "bytes")
        told = (c for c in columns if c.get("fill", "message") == "message")
        self.columns = [c for c in told if c["kind"] not in skipped]


# --- records --------------------------------------------------------------------------------------


def says_something(value):
    return value is not None and not (type(value) is str and value in ("", "-"))


def candidates(record, path):
    """What a path leads to: nested members, then the one member of that whole name."""
    at = record
    names = [name.strip('"') for name in re.findall(r'"[^"]*"|[^."]+', path)]
    for name in names:
        at = at.get(name) if isinstance(at, dict) else None
    yield at
    if len(names) > 1:
        yield record.get(".".join(names))


def first(record, paths):
    """The first value that says something, else None."""
    for path in paths:
        for value in candidates(record, path):
            if says_something(value):
                return value
    return None


def written(value):
    """A scalar as JSON writes it, texts without quotes; None for objects and arrays."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str) else None


def holds(record, condition):
    present = lambda path: any(value is not None for value in candidates(record, path))
    found = lambda paths: (v for path in paths.split("|") for v in candidates(record, path) if v is not None)
    is_one = lambda paths, texts: any(written(v) in texts for v in found(paths))
    return (
        all(map(present, condition.get("all", [])))
        and (not condition.get("any") or any(map(present, condition["any"])))
        and not any(map(present, condition.get("none", [])))
        and all(is_one(path, texts) for path, texts in condition.get("equals", {}).items())
    )


# --- values ---------------------------------------------------------------------------------------


def text(value, column):
    value = written(value)
    if value is None:
        raise Misfit
    if column.get("first_line"):
        value = re.split(r"[\r\n]", value, maxsplit=1)[0]
    if column.get("whole") and len(value.encode(errors="surrogatepass")) > column.get("cap", 512):
        raise Misfit
    # A surrogate without its partner is no character; PostgreSQL's text can't hold NUL.
    value = re.sub("[\0\ud800-\udfff]", "\ufffd", value)
    return value.encode()[: column.get("cap", 512)].decode(errors="ignore") or None


def integer(value, kind):
    if not isinstance(value, str):
        raise Misfit
    if isinstance(value, Number):
        match = re.fullmatch(r"-?\d+", value, re.ASCII)
    else:
        match = re.fullmatch(r"[+-]?\d+|0[xX][0-9a-fA-F]+", value := value.strip(), re.ASCII)
    if not match:
        raise Misfit
    number = int(value, 16 if value[:2] in ("0x", "0X") else 10)
    if not -RANGES[kind] <= number < RANGES[kind]:
        raise Misfit
    return number


def address(value):
    if type(value) is not str:
        raise Misfit
    value = value.strip()
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    value, zone, _ = value.partition("%")
    try:
        found = ipaddress.IPv6Address(value) if zone else ipaddress.ip_address(value)
    except ValueError:
        raise Misfit from None
    mapped = found.version == 6 and found.ipv4_mapped
    return f"::ffff:{mapped}" if mapped else str(found)


def convert(value, column):
    """The value as the column holds it."""
    match column["kind"]:
        case "text":
            return text(value, column)
        case "int16" | "int32" | "int64":
            return integer(value, column["kind"])
        case "inet":
            return address(value)
        case "bool":
            if lower(written(value) or "") not in ("true", "false"):
                raise Misfit
            return lower(written(value)) == "true"
        case kind:
            raise SystemExit(f"column {column['name']}: the oracle doesn't know kind {kind}")


# --- times ----------------------------------------------------------------------------------------

CLOCK = r"(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?"
CALENDAR = re.compile(rf"(\d{{4}})-(\d\d)-(\d\d)(?:[Tt ]{CLOCK}\s*(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII)
SYSLOG = re.compile(rf"([A-Za-z]{{3}})\s*(\d\d?)\s*{CLOCK}", re.ASCII)


def millionths(fraction):
    return int(((fraction or "") + "000000")[:6])


def clock(hour, minute, second, fraction):
    hour, minute, second = int(hour), int(minute), int(second or 0)
    if hour > 23 or minute > 59 or second > 60:
        return None
    return (hour * 3600 + minute * 60 + min(second, 59)) * SECOND + millionths(fraction)


def date(year, month, day):
    """Microseconds at the start of a day, or None."""
    try:
        # The calendar repeats every 400 years; Python's has no year 0.
        shift = 146_097 if year < 1 else 0
        days = datetime.date(year + (400 if shift else 0), month, day).toordinal() - shift
    except ValueError:
        return None
    return (days - datetime.date(1970, 1, 1).toordinal()) * DAY


def epoch(value):
    """A number of seconds, milliseconds, microseconds or nanoseconds, told apart by magnitude."""
    match = re.fullmatch(r"(-?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d+))?", value, re.ASCII)
    if not match or len(match[4] or "") > 4:
        return None
    digits, fraction = match[2], match[3] or ""
    move = int(match[4] or 0)
    if move > 0:
        fraction = fraction.ljust(move, "0")
        digits, fraction = digits + fraction[:move], fraction[move:]
    elif move < 0:
        digits = digits.rjust(1 - move, "0")
        digits, fraction = digits[:move], digits[move:] + fraction
    whole = int(digits)
    if whole >= (1 << 63) + bool(match[1]):
        return None
    power = 6 if whole < 10**11 else 3 if whole < 10**14 else 0 if whole < 10**17 else -3
    exact = int(digits + fraction.ljust(6, "0")[:6])  # in millionths of the unit
    micros = exact * 10 ** (power + 3) // 10**9
    return -micros if match[1] else micros


def time(value, arrived_at):
    """Microseconds since 1970 UTC, or None."""
    if not isinstance(value, str):
        return None
    if isinstance(value, Number):
        return epoch(value)
    value = value.strip()
    if match := CALENDAR.fullmatch(value):
        start = date(int(match[1]), int(match[2]), int(match[3]))
        of_day = clock(*match.group(4, 5, 6, 7)) if match[4] else 0
        zone = match[8] or "Z"
        east = 0
        if zone[0] in "+-":
            hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
            if hours > 18 or minutes > 59:
                return None
            east = (hours * 3600 + minutes * 60) * SECOND * (-1 if zone[0] == "-" else 1)
        return None if start is None or of_day is None else start + of_day - east
    if re.fullmatch(r"\d+(\.\d*)?", value, re.ASCII):
        return epoch(value)
    if match := SYSLOG.fullmatch(value):
        month, of_day = MONTHS.get(match[1].lower()), clock(*match.group(3, 4, 5, 6))
        if month is None or of_day is None:
            return None
        latest = arrived_at + DAY
        year = (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=latest)).year
        for back in range(9):
            start = date(year - back, month, int(match[2]))
            if start is not None and start + of_day <= latest:
                return start + of_day
    return None


# --- text lines -----------------------------------------------------------------------------------

PAIR = re.compile(r"""([A-Za-z0-9_-]+)=("[^"]*"?|'[^']*'?|[^\s'"]+)""")
HEX_FIELDS = frozenset(
    "acct cmd comm cwd data device dir exe file grp key name new_group ocomm path proctitle title unit vm watch".split()
)


def auditd(line):
    """`type=… msg=audit(time:serial): key=value …`, named as go-libaudit names things."""
    head = re.match(r"(?:node=(\S*) +)?type=(.*?) msg=audit\(([^:)]*):(\d+)\):", line)
    if not head:
        return None
    fields = {"type": head[2], "time": head[3], "serial": head[4]}
    if head[1]:
        fields["node"] = head[1]
    rest = line[head.end() :].split("\x1d")[0]
    if access := re.match(r"\s*avc:\s*(.*?)\s*\{(.*?)\}", rest):
        fields["seresult"] = access[1]
        fields["seperms"] = ",".join(access[2].split())
        rest = rest[access.end() :]
    audit_pairs(head[2], re.sub(r"\b(old|new) (?=[a-z]+=)", r"\1_", rest), fields)
    if fields.get("arch") == "x86_64" and fields.get("syscall", "").isdecimal():
        fields["syscall"] = SYSCALLS.get(int(fields["syscall"]), fields["syscall"])
    return fields


def audit_pairs(kind, rest, fields):
    for name, value in PAIR.findall(rest):
        if value[0] == "'":
            audit_pairs(kind, value.strip("'"), fields)
            continue
        quoted = value[0] == '"'
        if quoted:
            value = value.strip('"')
        else:
            value = value.rstrip(",")
            if "(" not in value:
                value = value.rstrip(")")
        if value == "" or (not quoted and value in ("?", "(null)")):
            continue
        if quoted:
            fields[name] = value
        elif name in ("subj", "obj"):
            for part, piece in zip(("user", "role", "domain", "level", "category"), value.split(":", 4)):
                fields[f"{name}_{part}"] = piece
        elif name in ("res", "success"):
            fields["result"] = "success" if value in ("success", "yes", "1") else "fail"
        elif name in ("auid", "ses") and value in ("4294967295", "-1"):
            fields[name] = "unset"
        elif name == "arch" and value == "c000003e":
            fields[name] = "x86_64"
        elif (name in HEX_FIELDS or (kind == "EXECVE" and re.fullmatch(r"a\d+", name))) and re.fullmatch(
            r"(?:[0-9A-F]{2})+", value
        ):
            fields[name] = bytes.fromhex(value).replace(b"\0", b" ").decode(errors="replace")
        else:
            fields[name] = value


def syslog(line):
    """RFC 5424, or RFC 3164 with or without its priority."""
    fields = {}
    if (match := re.match(r"<(\d{1,3})>", line, re.ASCII)) and int(match[1]) < 192:
        fields["facility"] = FACILITIES[int(match[1]) // 8]
        fields["severity"] = SEVERITIES[int(match[1]) % 8]
        line = line[match.end() :]
    if fields and line.startswith("1 "):
        match = re.match(r"1 ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ", line)
        if not match:
            return None
        names = ("timestamp", "host", "program", "pid", "msgid")
        fields.update((name, value) for name, value in zip(names, match.groups()) if value != "-")
        data = re.match(r'(?:-|(?:\[[^ \]]*(?: [^=]*?="(?:[^"\\]|\\.)*")*\])+)', rest := line[match.end() :], re.DOTALL)
        if not data:
            return None
        for element in re.finditer(r'\[([^ \]]*)((?: [^=]*?="(?:[^"\\]|\\.)*")*)\]', data[0], re.DOTALL):
            for name, value in re.findall(r' ([^=]*?)="((?:[^"\\]|\\.)*)"', element[2], re.DOTALL):
                fields[f"sd.{element[1]}.{name}"] = re.sub(r'\\(["\\\]])', r"\1", value)
        message = rest[data.end() :].removeprefix(" ").removeprefix("\ufeff")
    else:
        match = re.match(r"((?:%s) [ \d]\d [\d:]{8}) ([^ ]*) (.*)" % "|".join(m.title() for m in MONTHS), line, re.DOTALL)
        if not match:
            return None
        fields["timestamp"], fields["host"], message = match.groups()
        if tag := re.match(r"([^ :\[]+)(?:\[([^\]:]*)\])?: ?", message):
            fields["program"] = tag[1]
            if tag[2]:
                fields["pid"] = tag[2]
            message = message[tag.end() :]
    fields["message"] = message
    # The name is whatever a stranger typed: what sshd itself adds stands behind the last " from ".
    login = re.match(r"(?:(?:Failed|Accepted) \S+ for (?:invalid user )?|Invalid user )(.*) from (\S+)(?: port (\d+))?", message)
    if login:
        fields["user"], fields["src_ip"] = login[1], login[2]
        if login[3]:
            fields["src_port"] = login[3]
    return fields


READERS = {"auditd": auditd, "syslog": syslog, "text": lambda line: {"message": line}}

SYSCALLS = dict(enumerate("""
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield
mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm
setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind
listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit
wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync
fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink
symlink readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo
times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid
setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid
setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
sigaltstack utime mknod uselib personality ustat statfs fstatfs sysfs getpriority setpriority
sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall vhangup
modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday
mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module
init_module delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg
afs_syscall tuxcall security gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr
fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex
sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit
io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old
remap_file_pages getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create
timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime
clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes vserver mbind
set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init
inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat
newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
unshare set_robust_list get_robust_list splice tee sync_file_range vmsplice move_pages utimensat
epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4
signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo
perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at
open_by_handle_at clock_adjtime syncfs sendmmsg setns getcpu process_vm_readv process_vm_writev
kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create
kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2
pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq
""".split()))
SYSCALLS.update(enumerate("""
pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen
fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2
process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule
landlock_restrict_self memfd_secret process_mrelease futex_waitv set_mempolicy_home_node
""".split(), 424))

# --- messages -------------------------------------------------------------------------------------


def open_envelope(message):
    """The record (an object or a line) and what the envelope says besides.

    An object with `event` (an object) or `raw` (a text) is an envelope if it names a format or a
    tenant or if its other members are scalars, and has no @timestamp; else it is the record.
    """
    is_text = lambda value: type(value) is str
    inner = [v for k, v in message.items() if (k == "event" and isinstance(v, dict)) or (k == "raw" and is_text(v))]
    named = any(is_text(message.get(name)) for name in ("format", "fmt", "tenant_id"))
    others = (v for k, v in message.items() if not (k == "event" and isinstance(v, dict)))
    scalars = not any(isinstance(value, (dict, list)) for value in others)
    if inner and "@timestamp" not in message and (named or scalars):
        return inner[-1], message
    return message, {}


class Unreadable(Exception):
    """No format fits."""


def choose(record, told, descriptions):
    """The format, and the record as members or fields."""
    told = descriptions.names.get(told) if isinstance(told, str) else None
    if isinstance(record, dict):
        if told and told.shape == "json":
            return told, record
        for known in descriptions.formats:
            if known.shape == "json" and known.recognise is not None and holds(record, known.recognise):
                return known, record
        raise Unreadable("no format fits")
    for known in [told] if told else []:
        if known.shape in READERS and (fields := READERS[known.shape](record)) is not None:
            return known, fields
    for known in descriptions.formats:
        if known.shape in READERS and (fields := READERS[known.shape](record)) is not None:
            return known, fields
    raise Unreadable("no format fits")


def value_of(record, source):
    if source is None:
        return None
    if source[0] == "first":
        return first(record, source[1])
    _, key, table, default = source
    parts = (written(value) if (value := first(record, paths)) is not None else "" for paths in key)
    return table.get(lower("/".join(part or "" for part in parts)), default)


def extract(message, descriptions, arrived_at):
    record, envelope = open_envelope(message) if isinstance(message, dict) else (message, {})
    told = [envelope[name] for name in envelope if name in ("format", "fmt") and type(envelope[name]) is str]
    known, record = choose(record, told[-1] if told else None, descriptions)
    if not holds(record, known.when):
        raise Unreadable(f"{known.name} has no row for this stream in it")
    row = {"format": known.name}
    at = time(value_of(record, known.columns.get(descriptions.time)), arrived_at)
    row["event_time"] = time(envelope.get("ts"), arrived_at) if at is None else at
    for column in descriptions.columns:
        name = column["name"]
        value = value_of(record, known.columns.get(name))
        try:
            value = None if value is None else convert(value, column)
        except Misfit:
            value = None
        if value is None and name == "host_name" and type(envelope.get("host")) is str:
            value = text(envelope["host"], column) if says_something(envelope["host"]) else None
        if value is None and name in ("class_uid", "severity_id"):
            value = 0
        row[name] = value
    return row


def read(line):
    """A message: an object, or the line itself."""
    if line.lstrip()[:1] != "{":
        return line
    return json.loads(line, parse_int=Number, parse_float=Number)


def main():
    descriptions = Descriptions(pathlib.Path(sys.argv[1]))
    arrived_at = int(sys.argv[2]) if len(sys.argv) > 2 else 1_767_225_600 * SECOND
    for line in sys.stdin.buffer:
        try:
            row = extract(read(line.decode().rstrip("\r\n")), descriptions, arrived_at)
        except (Unreadable, ValueError) as error:
            row = {"error": str(error)}
        sys.stdout.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    main()
