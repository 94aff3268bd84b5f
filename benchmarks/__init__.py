"""Measures the speed of landing, builds and endpoints, and estimates the cost of BigQuery."""
