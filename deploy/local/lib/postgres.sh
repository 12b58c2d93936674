# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables cross between this file and the ones sourced beside it
# TimescaleDB on PostgreSQL 17, and plain PostgreSQL 15. Sourced by ../services.

# --- plain PostgreSQL: Debian's package (see ../prerequisites), a private cluster --------------------------------

postgres_bin=/usr/lib/postgresql/15/bin
postgres_what="PostgreSQL 15"

postgres_installed() { [[ -x $postgres_bin/initdb ]]; }
postgres_install() { "$here/prerequisites" build; }

# PostgreSQL refuses to be root. Where the `postgres` user cannot reach the folder (a checkout under a home of mode
# 700), a user namespace gives root another name instead.
postgres_user() {
  if ((EUID != 0)); then
    as_user=()
  elif setpriv --reuid=postgres --regid=postgres --clear-groups test -x "$data"; then
    as_user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    chown -R postgres: "$data/postgres"
  else
    as_user=(unshare --user --map-user=1000 --map-group=1000)
  fi
}

postgres_start() {
  local as_user
  install -d -m 700 "$data/postgres"
  postgres_user
  if [[ ! -e $data/postgres/PG_VERSION ]]; then
    "${as_user[@]}" "$postgres_bin/initdb" "${initdb_options[@]}" -D "$data/postgres" >>"$logs/postgres.log" 2>&1 ||
      die "initdb failed; see $logs/postgres.log"
  fi
  write_settings "$data/postgres" "$postgres_port"
  launch postgres "${as_user[@]}" "$postgres_bin/postgres" -D "$data/postgres"
  wait_ready postgres 60 accepts_connections "$postgres_port"
}

# --- TimescaleDB: Debian 13's build, in a chroot, since Debian 12 has none ---------------------------------------

timescale_version=2.19.3
timescale_root=$state/timescale-root
timescale_bin=/usr/lib/postgresql/17/bin
timescale_what="TimescaleDB $timescale_version on PostgreSQL 17"

timescale_installed() { [[ -e $timescale_root/.complete ]]; }

# In a mount namespace of its own, as below: debootstrap mounts /proc, and an interrupted run would leave it behind.
timescale_install() {
  ((EUID == 0)) || die "TimescaleDB runs in a chroot: be root, or set INOSEC_TEST_TIMESCALE_URL to a server of yours"
  local found
  rm -rf --one-file-system "$timescale_root"
  unshare --mount --propagation private \
    debootstrap --variant=minbase --include=postgresql-17-timescaledb,locales trixie "$timescale_root"
  found=$(dpkg-query --root="$timescale_root" -W -f='${Version}' postgresql-17-timescaledb)
  [[ $found == "$timescale_version"* ]] || die "Debian now has TimescaleDB $found; this project tests $timescale_version"
  rm -rf "$timescale_root/var/cache/apt/archives" "$timescale_root/var/lib/postgresql/17"
  install -d -m 755 "$timescale_root/data"
  touch "$timescale_root/.complete"
}

# The command to enter the chroot as `postgres`, up to the program to run. The mounts live in the process's own mount
# namespace: the machine never sees them, they end with the server however it ends, and no `rm` can go through them.
# Every step is an exec, so the process id stays the one that was launched.
# shellcheck disable=SC2016 # for the inner bash to expand
timescale_enter=(
  unshare --mount --propagation private bash -euc '
    root=$1 data=$2
    shift 2
    mount --rbind /dev "$root/dev"
    mount --rbind /proc "$root/proc"
    mount --bind "$data" "$root/data"
    cd /
    exec chroot --userspec=postgres:postgres "$root" "$@"'
  enter "$timescale_root" "$data/timescale"
)

timescale_start() {
  ((EUID == 0)) || die "TimescaleDB runs in a chroot: be root, or set INOSEC_TEST_TIMESCALE_URL to a server of yours"
  install -d -m 700 "$data/timescale"
  # Owned by the chroot's postgres, whose number outside means somebody else or nobody.
  chown "$(chroot "$timescale_root" id -u postgres):$(chroot "$timescale_root" id -g postgres)" "$data/timescale"
  if [[ ! -e $data/timescale/PG_VERSION ]]; then
    "${timescale_enter[@]}" "$timescale_bin/initdb" "${initdb_options[@]}" -D /data >>"$logs/timescale.log" 2>&1 ||
      die "initdb failed; see $logs/timescale.log"
  fi
  # No background workers: policies need the Community licence anyway, and every test's database would hold one of
  # the eight worker slots, which parallel queries want.
  write_settings "$data/timescale" "$timescale_port" "shared_preload_libraries = 'timescaledb'" \
    "timescaledb.telemetry_level = off" "timescaledb.max_background_workers = 0"
  launch timescale "${timescale_enter[@]}" "$timescale_bin/postgres" -D /data
  wait_ready timescale 60 accepts_connections "$timescale_port"
}

# --- both --------------------------------------------------------------------------------------------------------

initdb_options=(-U postgres --auth=trust -E UTF8 --locale=C.UTF-8 --no-sync)

accepts_connections() { "$postgres_bin/pg_isready" -q -U postgres -h "$host" -p "$1"; }

# write_settings FOLDER PORT LINES...: rewritten at every start. A file rather than `-c` options, which ALTER SYSTEM
# and so a test could not override. Durability is production's: the tests are about what survives a crash.
write_settings() {
  local folder=$1 port=$2
  shift 2
  {
    cat <<EOF
listen_addresses = '$host'
port = $port
unix_socket_directories = ''
max_connections = 200
shared_buffers = 512MB
max_wal_size = 4GB
fsync = on
synchronous_commit = on
EOF
    printf '%s\n' "$@"
  } >"$folder/inosec.conf"
  chmod 644 "$folder/inosec.conf"
  grep -q inosec.conf "$folder/postgresql.conf" || printf "include 'inosec.conf'\n" >>"$folder/postgresql.conf"
}
