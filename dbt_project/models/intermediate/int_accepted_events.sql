-- Accepted copies of the events of all streams in one vocabulary; an event that came twice is here twice.
-- A null stands in the union itself: one of a CTE would be an INT64 on BigQuery.
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
