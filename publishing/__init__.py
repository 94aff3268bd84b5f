"""What a successful build publishes: the questions compiled and, on DuckDB, a copy of the warehouse."""
