"""Questions to the marts, and their answers."""
