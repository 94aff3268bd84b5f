"""The commands of `python -m ingest`, which ingest/cli.py puts together."""
