"""What a user would write in an afternoon: confluent-kafka, orjson, psycopg COPY, 5,000 rows a commit.

At least once: rows first, then Kafka's offsets. Prints "time rows" after every commit. The partitions are
given, so that no rebalance stops it.
"""

import datetime
import sys
import time
import uuid

import orjson
import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

ROWS = 5000
COLUMNS = "ts, tenant_id, host_name, provider, channel, event_code, format, kafka_partition, kafka_offset, raw"
TYPES = ["timestamptz", "uuid", "text", "text", "text", "text", "text", "int4", "int8", "text"]


def text(value):
    return None if value is None else str(value).replace("\0", "")


def main(brokers, topic, dsn, *partitions):
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": topic + ".python",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 65536,
            "fetch.message.max.bytes": 4194304,
        }
    )
    consumer.assign([TopicPartition(topic, int(number), OFFSET_BEGINNING) for number in partitions])
    database = psycopg.connect(dsn)
    tenants = {}
    utc = datetime.timezone.utc
    from_timestamp = datetime.datetime.fromtimestamp
    while True:
        messages = consumer.consume(ROWS, 0.5)
        if not messages:
            continue
        with database.cursor() as cursor, cursor.copy(f"COPY others ({COLUMNS}) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(TYPES)
            write_row = copy.write_row
            for message in messages:
                if message.error():
                    raise SystemExit(str(message.error()))
                value = message.value()
                envelope = orjson.loads(value)
                event = envelope.get("event") or {}
                owner = message.headers()[0][1]
                tenant = tenants.get(owner)
                if tenant is None:
                    tenant = tenants[owner] = uuid.UUID(owner.decode())
                get = event.get
                write_row(
                    (
                        from_timestamp(message.timestamp()[1] / 1000, utc),
                        tenant,
                        text(get("Hostname") or get("computer_name") or envelope.get("host")),
                        text(get("SourceName") or get("source_name") or get("eventSource")),
                        text(get("Channel") or get("log_name")),
                        text(get("EventID") or get("event_id") or get("eventName")),
                        envelope.get("fmt"),
                        message.partition(),
                        message.offset(),
                        value.decode(),
                    )
                )
        database.commit()
        consumer.commit(asynchronous=False)
        print(time.time(), len(messages), flush=True)


main(*sys.argv[1:])
