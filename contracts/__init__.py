"""Tools that write and check the contracts of streams/: the commands `stream add`, `stream check`, `stream promote`."""
