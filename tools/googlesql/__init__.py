"""BigQuery's SQL in memory: Google's analyzer and reference implementation, and a client of BigQuery that uses them."""
