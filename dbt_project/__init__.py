"""The dbt project, and the command that runs it."""
