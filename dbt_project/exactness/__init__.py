"""Whether marts are exact: random messages are built run by run and compared with a full refresh, row for row."""
