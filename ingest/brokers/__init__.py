"""Kafka and Pub/Sub clients, shared by sources, producers and `provision`."""
