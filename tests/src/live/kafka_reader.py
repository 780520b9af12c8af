"""Prints what is in a topic, a line a record: key|name=value,name=value|body."""

import sys

from kafka import KafkaConsumer, TopicPartition

broker, topic = sys.argv[1:]
consumer = KafkaConsumer(
    bootstrap_servers=broker, isolation_level="read_committed", enable_auto_commit=False
)
places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
consumer.assign(places)
consumer.seek_to_beginning()
ends = consumer.end_offsets(places)
while any(consumer.position(place) < ends[place] for place in places):
    for records in consumer.poll(1000).values():
        for record in records:
            headers = ",".join(f"{name}={value.decode()}" for name, value in record.headers)
            print(f"{record.key.decode()}|{headers}|{record.value.decode()}")
