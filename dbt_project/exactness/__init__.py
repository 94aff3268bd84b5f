"""Checks whether marts are exact: builds random messages run by run and compares the rows with a full refresh."""
