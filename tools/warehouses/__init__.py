"""Warehouses in folders of their own, landed into and built from this checkout."""
