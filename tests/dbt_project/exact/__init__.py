"""Promise 3: incremental equals full refresh equals the definition (`specification`), in random small worlds."""
