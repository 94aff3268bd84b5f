"""Lands the messages of Pub/Sub, Kafka and the spool in the warehouse, each exactly once."""
