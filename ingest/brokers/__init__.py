"""The clients of Kafka and Pub/Sub that sources, producers and provisioning share."""
