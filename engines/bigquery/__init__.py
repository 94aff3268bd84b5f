"""BigQuery: the warehouse is the datasets of a Google Cloud project."""
