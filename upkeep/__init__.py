"""Keeps a warehouse: backs it up, restores and moves it, compacts its file."""
