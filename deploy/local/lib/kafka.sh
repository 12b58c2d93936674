# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables cross between this file and the ones sourced beside it
# Apache Kafka: one KRaft node, broker and controller in one process. Sourced by ../services.
# Jars come from Maven rather than a release archive: ordinary registries are all a closed network offers.

kafka_version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka.pom.xml")
kafka_jars=$state/kafka-$kafka_version
kafka_tls=$secrets/kafka-tls
kafka_ca=$kafka_tls/ca.pem
kafka_user=inosec
kafka_what="Kafka $kafka_version"

kafka_installed() { [[ -e $kafka_jars/.complete ]]; }

kafka_install() {
  rm -rf "$kafka_jars"
  mvn -q -B -f "$here/kafka.pom.xml" dependency:copy-dependencies -DoutputDirectory="$kafka_jars"
  touch "$kafka_jars/.complete"
}

# A private CA and a server certificate, as an operator would have them. The CA's key is thrown away.
kafka_make_tls() {
  [[ ! -e $kafka_tls/keystore.pem ]] || return 0
  mkdir -p "$kafka_tls"
  (
    cd "$kafka_tls" || exit
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=inosec local CA' -keyout ca.key -out ca.pem
    openssl req -newkey rsa:2048 -nodes -subj '/CN=localhost' -keyout server.key -out server.csr
    openssl x509 -req -days 3650 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem \
      -extfile <(printf 'subjectAltName=DNS:localhost,IP:%s\nextendedKeyUsage=serverAuth\n' "$host")
    cat server.key server.pem ca.pem >keystore.pem
    rm -f ca.key ca.srl server.key server.csr server.pem
  ) >>"$logs/kafka.log" 2>&1
}

kafka_write_properties() {
  cat >"$data/kafka.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$host:$kafka_controller_port
listeners=PLAINTEXT://$host:$kafka_port,SASL_SSL://$host:$kafka_sasl_port,CONTROLLER://$host:$kafka_controller_port
advertised.listeners=PLAINTEXT://$host:$kafka_port,SASL_SSL://$host:$kafka_sasl_port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
log.dirs=$data/kafka

sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.ssl.keystore.type=PEM
listener.name.sasl_ssl.ssl.keystore.location=$kafka_tls/keystore.pem

# One node: nothing to replicate to. Few internal partitions: the first group or transaction waits for all of them.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# A misspelt topic is an error, as in production.
auto.create.topics.enable=false

# 16 MiB messages, uncompressed, in one request.
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
socket.request.max.bytes=104857600

# Tests see retention, compaction, rebalances and abandoned transactions in seconds.
log.retention.check.interval.ms=5000
log.cleaner.backoff.ms=1000
log.segment.delete.delay.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# A broker that was killed may register again only once its old session has ended (default 9 s).
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
EOF
}

# Followed by a class and its arguments; also runs the command-line clients. INFO, for the line kafka_started waits for.
kafka_java=(java -Xms256m -Xmx768m -XX:+UseParallelGC -Dorg.apache.logging.log4j.level=INFO -cp "$kafka_jars/*")

# The SCRAM credential must exist before the first client, so it is part of the format, not an admin call later.
kafka_format() {
  [[ ! -e $data/kafka/meta.properties ]] || return 0
  local password id
  password=$(secret kafka-password)
  # A URL-safe base64 of 16 bytes is Kafka's form of a UUID; a leading dash would read as an option.
  id=$(openssl rand -base64 16 | tr '+/' '-_' | tr -d '=' | sed 's/^-/A/')
  "${kafka_java[@]}" kafka.tools.StorageTool format -c "$data/kafka.properties" -t "$id" \
    --add-scram "SCRAM-SHA-512=[name=$kafka_user,password=$password]" \
    --add-scram "SCRAM-SHA-256=[name=$kafka_user,password=$password]" >>"$logs/kafka.log" 2>&1 ||
    die "formatting Kafka's storage failed; see $logs/kafka.log"
}

# The port opens before the broker is unfenced, and a topic created in between fails: wait for the last line of
# starting. grep reads to the end of a process substitution, since `tail | grep -q` fails under pipefail.
kafka_started() { grep -q 'Kafka Server started' < <(tail -c "+$(($1 + 1))" "$logs/kafka.log"); }

kafka_start() {
  local seen
  kafka_make_tls
  kafka_write_properties
  kafka_format
  seen=$(stat -c %s "$logs/kafka.log" 2>/dev/null || echo 0)
  launch kafka "${kafka_java[@]}" kafka.Kafka "$data/kafka.properties"
  wait_ready kafka 90 kafka_started "$seen"
}
