"""What tests and benchmarks run against: local brokers, BigQuery's SQL in memory, and warehouses in folders."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""
