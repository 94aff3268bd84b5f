"""The warehouse engines, one folder each, behind the interface `Engine`."""
