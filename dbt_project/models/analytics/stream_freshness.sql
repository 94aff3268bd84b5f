-- How long messages took until they were in the answers. `live` adds the rows: a build only creates the table.
{{ config(
    materialized='incremental',
    full_refresh=false,
    unique_key=['stream', 'minute_at'],
    partition_by={'field': 'minute_at', 'data_type': 'timestamp', 'granularity': 'day'}
) }}

select
    cast(null as {{ dbt.type_string() }}) as stream,
    cast(null as timestamp) as minute_at,
    cast(null as {{ dbt.type_bigint() }}) as messages,
    cast(null as numeric(18, 3)) as p50_seconds,
    cast(null as numeric(18, 3)) as p95_seconds,
    cast(null as numeric(18, 3)) as max_seconds,
    cast(null as numeric(18, 3)) as p95_landing_seconds,
    cast(null as numeric(18, 3)) as p95_waiting_seconds,
    cast(null as numeric(18, 3)) as p95_building_seconds,
    cast(null as numeric(18, 3)) as p95_publishing_seconds
from (select 1) as nothing
where false
