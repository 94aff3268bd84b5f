"""The process behind `make live`: lands, builds, publishes and serves, so that an event is in every answer in seconds."""
