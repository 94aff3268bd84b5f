-- Where bodies differ from the contract of their stream: fields that it does not list, and values that do not fit a
-- field that it does. Of a rejected message the first value that does not fit counts.
{{ config(materialized='view') }}

with unlisted as (
    {{ each_unlisted_field(ref('int_staged_messages')) }}
),

invalid as (
    select *, substr(reject_reason, length('invalid:') + 1) as path
    from {{ ref('int_staged_messages') }}
    where reject_reason like 'invalid:%'
),

found as (
    select stream, path, 'unlisted' as problem, type, example, landed_at from unlisted
    union all
    select stream, path, 'invalid' as problem, null as type, null as example, landed_at from invalid
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
