"""Increments, full refreshes and the specification have the same rows, in random small worlds."""
