"""What a successful build publishes: the queries compiled and, on DuckDB, a copy of the marts."""
