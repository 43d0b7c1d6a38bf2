"""From Kafka: positions, records, decoding, dead letters, receipts.

The only stage that speaks with a consumer group.
"""
