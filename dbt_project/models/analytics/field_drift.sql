-- Where messages differ from the contract of their stream: fields that it does not list, and values that do not fit
-- their field. A rejected message counts for its first value that does not fit.
{{ config(materialized='view') }}

with named as (
    select
        *,
        case
            when problem = 'invalid' and path = 'timestamp' then case stream
                {%- for name, contract in contracts().items() %}
                when '{{ name }}' then '{{ contract.time[0] if contract.time else 'ts_ms' }}'
                {%- endfor %}
            end
            else path
        end as field_path
    from {{ ref('int_field_drift_daily') }}
)

select
    stream,
    field_path as path,
    problem,
    nullif(type, '') as type,
    cast(sum(messages) as bigint) as messages,
    min(first_seen_at) as first_seen_at,
    max(last_seen_at) as last_seen_at,
    min(example) as example
from named
group by stream, field_path, problem, nullif(type, '')
