-- Every version with the time it was valid (SCD2).
-- Written by `python -m dbt_project.contracts` from streams/*.yml: change those.
{{ config(
    materialized='incremental',
    unique_key='version_key',
    cluster_by='user_id'
) }}
{{ entity_history('users') }}
