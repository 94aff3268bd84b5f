"""DuckDB: the warehouse is one file."""
