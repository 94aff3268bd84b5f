-- Where messages differ from the contract of their stream: fields that it does not list, and values that do not fit
-- their field. A rejected message counts for its first value that does not fit.
{{ config(materialized='view') }}

with unlisted as (
    {{ each_unlisted_field(ref('int_staged_messages')) }}
),

-- reject_detail is the text of the value that does not fit; null for a personal field
invalid as (
    select
        *,
        case
            when reject_reason = 'invalid:timestamp' then case stream
                {%- for name, contract in contracts().items() %}
                when '{{ name }}' then '{{ contract.time[0] if contract.time else 'ts_ms' }}'
                {%- endfor %}
            end
            else substr(reject_reason, length('invalid:') + 1)
        end as path,
        case
            when {{ matches_pattern('reject_detail', '^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?$') }} then 'number'
            when reject_detail in ('true', 'false') then 'boolean'
            when {{ matches_pattern('reject_detail', '^[{].*[}]$') }} then 'object'
            when {{ matches_pattern('reject_detail', '^[[].*[]]$') }} then 'array'
            when reject_detail is not null then 'string'
        end as type
    from {{ ref('int_staged_messages') }}
    where reject_reason like 'invalid:%'
),

found as (
    select stream, path, 'unlisted' as problem, type, example, landed_at from unlisted
    union all
    select
        stream,
        path,
        'invalid' as problem,
        type,
        case type
            when 'object' then '{...}'
            when 'array' then '[...]'
            else {{ masked('reject_detail') }}
        end as example,
        landed_at
    from invalid
)

select
    stream,
    path,
    problem,
    type,
    count(*) as messages,
    min(landed_at) as first_seen_at,
    max(landed_at) as last_seen_at,
    min(example) as example
from found
group by stream, path, problem, type
