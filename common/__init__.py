"""What ingest, dbt_project, publishing and serve share: settings, contracts of streams, errors, command lines, HTTP."""
