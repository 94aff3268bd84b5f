"""What all other packages share: settings, the contracts of streams, errors, command lines, logs, HTTP start-up."""
