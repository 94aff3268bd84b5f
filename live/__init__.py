"""The process behind `make live`: lands, builds, publishes and serves, so that answers are seconds old."""
