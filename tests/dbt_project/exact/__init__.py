"""Promise 3: incremental equals full refresh equals the definition (`tests.oracle`), in random small worlds."""
