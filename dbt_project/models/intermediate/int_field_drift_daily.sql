-- field_drift per landing date, so that the mart does not read every staged message. The dates on which such messages
-- landed are counted again.
{{ config(
    materialized='incremental',
    unique_key=['stream', 'landed_date', 'path', 'problem', 'type'],
    partition_by={'field': 'landed_date', 'data_type': 'date'},
    meta={'live': 'with_snapshots'}
) }}

{%- set drifts = "(unlisted_fields is not null or reject_reason like 'invalid:%')" %}
{%- set new_messages %}
    select distinct cast(landed_at as date) as first_date, cast(landed_at as date) as last_date
    from {{ ref('int_staged_messages') }}
    where {{ drifts }} and {{ is_new() }}
{% endset %}
{%- set landed_dates = affected_dates(new_messages) %}

with messages as (
    select * from {{ ref('int_staged_messages') }}
    where {{ drifts }} and {{ is_in_build() }} and {{ landed_whole() }}
    {% if is_incremental() %}
        and {{ landed_in('landed_at', landed_dates) }}
    {% endif %}
),

unlisted as (
    {{ each_unlisted_field('messages') }}
),

-- reject_detail is the text of the value that does not fit; null for a personal field
invalid as (
    select
        *,
        substr(reject_reason, length('invalid:') + 1) as path,
        case
            when {{ matches_pattern('reject_detail', '^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?$') }} then 'number'
            when reject_detail in ('true', 'false') then 'boolean'
            when {{ matches_pattern('reject_detail', '^[{].*[}]$') }} then 'object'
            when {{ matches_pattern('reject_detail', '^[[].*[]]$') }} then 'array'
            when reject_detail is not null then 'string'
        end as type
    from messages
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
    cast(landed_at as date) as landed_date,
    path,
    problem,
    -- a null would not be found by the unique key
    coalesce(type, '') as type,
    count(*) as messages,
    min(landed_at) as first_seen_at,
    max(landed_at) as last_seen_at,
    min(example) as example
from found
group by stream, cast(landed_at as date), path, problem, coalesce(type, '')
