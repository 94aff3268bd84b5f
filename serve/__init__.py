"""Queries to the marts, and their answers."""
