-- The accepted messages of all event streams, with the same columns. An event that arrived twice is here twice.
-- Attributes that a stream does not have are nulls in the union itself: BigQuery gives a null in a CTE the type INT64.
{#- the attributes of streams whose staging is written by hand, not by a contract -#}
{%- set by_hand = {
    'page_views': [
        'user_id', 'source_session_id', 'page_title', 'url', 'engaged_seconds', 'account_number', 'traffic_source'
    ]
} %}

{% for stream in event_streams() -%}
{%- set contract = contracts()[stream] -%}
{%- set kept = own_fields(contract) | rejectattr('personal', 'equalto', 'drop') | map(attribute='name') | list -%}
{%- set given = by_hand.get(stream, kept) -%}
select
    stream, message_id, landed_at, published_at, event_key, event_id,
    {{ text_literal(contract.event_type) if contract.event_type is string else 'event_type' }} as event_type,
    event_at, event_date
    {%- for attribute in event_attributes() %},
    {{ '' if attribute in given else 'null as ' }}{{ attribute }}
    {%- endfor %},
    {{ 'null' if stream in by_hand else properties_of(stream) }} as properties
from {{ ref('stg_' ~ stream) }}
where reject_reason is null
{% if not loop.last %}union all{% endif %}
{% endfor %}
