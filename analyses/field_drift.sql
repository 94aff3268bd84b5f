-- Where messages differ from the contract of their stream.
{%- set stream = param('stream', 'all', 'string') %}
{%- set limit = param('limit', 100, 'integer') %}

select
    stream,
    path,
    problem,
    type,
    messages,
    first_seen_at,
    last_seen_at,
    example
from {{ ref('field_drift') }}
where lower({{ stream }}) = 'all' or stream = lower({{ stream }})
order by last_seen_at desc, messages desc, stream, path, problem, type
limit {{ limit }}
