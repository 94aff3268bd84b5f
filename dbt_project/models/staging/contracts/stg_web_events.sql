-- One row per message, parsed once.
-- Written by `python -m dbt_project.contracts` from streams/*.yml: change those.
{{ config(meta={'settings': ['earliest_event_at']}) }}
{{ staged_events('web_events') }}
