# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables cross between this file and the ones that source it
# What every server needs: where things live, and how a process is started, recognised and stopped.
# Sourced by ../services, which sets `here`, the folder it is in.

state=${INOSEC_STATE:-$here/../../.inosec}
mkdir -p "$state"/{bin,data,log,run,secrets}
state=$(cd -- "$state" && pwd)
data=$state/data       # all that `reset` deletes
logs=$state/log
run=$state/run         # one file a running server: who it is
secrets=$state/secrets # generated once, kept by `reset`
chmod 700 "$secrets"

# Loopback only. One number moves all of them, so two checkouts can be up side by side.
host=127.0.0.1
base=${INOSEC_PORT_BASE:-19000}
kafka_port=$((base + 92))
kafka_sasl_port=$((base + 93))
kafka_controller_port=$((base + 94))
timescale_port=$((base + 432))
postgres_port=$((base + 433))
minio_port=$((base + 900))

say() { printf 'services: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}

# timed SERVER WHAT COMMAND...: an installation, its output in a log, its length told.
# In the background and waited for, because a function called as a condition runs on after a failed command.
timed() {
  local server=$1 what=$2 started=$SECONDS log=$logs/$1-install.log
  shift 2
  say "installing $what"
  "$@" >"$log" 2>&1 &
  wait $! || {
    tail -n 20 "$log" >&2
    die "installing $what failed; the whole output is in $log"
  }
  say "installed $what in $((SECONDS - started)) s"
}

# secret NAME: a value made once. Hexadecimal, so it needs no quoting in URLs or property files.
secret() {
  local file=$secrets/$1
  [[ -s $file ]] || (umask 077 && openssl rand -hex 16 >"$file")
  cat "$file"
}

listening() { (: <"/dev/tcp/$host/$1") 2>/dev/null; }

# A process id is reused sooner or later; with its start time (in ticks since boot) and the boot it is one process.
# The name in field 2 may hold spaces, hence the cut up to its closing parenthesis. Field 22 is then the 20th.
identity() {
  local line fields
  line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra fields <<<"${line##*) }"
  # A zombie has ended and its parent has not noticed, unless other threads are still on their way out (field 20
  # counts them): a killed JVM holds its ports until the last one is gone.
  [[ ${fields[0]} != Z ]] || ((fields[17] > 1)) || return 1
  printf '%s %s %s\n' "$1" "${fields[19]}" "$(cat /proc/sys/kernel/random/boot_id)"
}

# running SERVER: the process that `up` started is alive. Prints its id.
running() {
  local recorded pid
  recorded=$(cat "$run/$1" 2>/dev/null) || return 1
  pid=${recorded%% *}
  [[ $(identity "$pid") == "$recorded" ]] || return 1
  printf '%s\n' "$pid"
}

# started SERVER: it is alive and has answered since it was launched. One that an interrupted `up` left half-way has not.
started() { running "$1" >/dev/null && [[ ! -e $run/$1.starting ]]; }

# launch SERVER COMMAND...: in a session of its own, so that neither ^C nor the end of the caller reaches it.
# Descriptor 9 is the lock of ../services, which must not outlive this run.
launch() {
  local server=$1
  shift
  : >"$run/$server.starting"
  setsid "$@" </dev/null >>"$logs/$server.log" 2>&1 9>&- &
  identity $! >"$run/$server" || true
}

# wait_ready SERVER SECONDS COMMAND...: until the command succeeds; the server's own last words if it dies instead.
wait_ready() {
  local server=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@"; do
    if ! running "$server" >/dev/null; then
      tail -n 20 "$logs/$server.log" >&2
      die "$server ended while starting; its log is $logs/$server.log"
    elif ((SECONDS >= deadline)); then
      die "$server is not ready in time; its log is $logs/$server.log"
    fi
    sleep 0.1
  done
  rm -f "$run/$server.starting"
}

# stop SERVER SIGNAL: and, after half a minute of patience, SIGKILL.
stop() {
  local server=$1 signal=$2 pid deadline=$((SECONDS + 30))
  pid=$(running "$server") || {
    rm -f "$run/$server" "$run/$server.starting"
    return 0
  }
  kill -s "$signal" "$pid" 2>/dev/null || true
  while running "$server" >/dev/null; do
    if ((SECONDS >= deadline)); then
      say "$server ignores SIG$signal: killed"
      kill -s KILL "$pid" 2>/dev/null || true
      deadline=$((SECONDS + 30))
    fi
    sleep 0.05
  done
  rm -f "$run/$server" "$run/$server.starting"
}
