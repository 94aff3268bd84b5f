-- Accepted copies of the events of all streams in one vocabulary; an event that came twice is here twice.
-- A null stands in the union itself: one of a CTE would be an INT64 on BigQuery.
{%- set streams = {
    'web_events': ['user_id', 'product_id', 'price', 'country', 'city', 'browser', 'os'],
    'page_views': [
        'user_id', 'source_session_id', 'page_title', 'url', 'engaged_seconds', 'account_number', 'traffic_source'
    ],
    'clicks': ['user_id', 'product_id', 'price', 'url'],
    'checkouts': ['user_id', 'product_id', 'total_amount'],
    'ecom_events': ['user_id', 'source_session_id', 'product_id', 'category_code', 'brand', 'price'],
    'post_events': ['user_id', 'post_id']
} %}
{%- set event_types = {'page_views': "'page_view'", 'clicks': "'click'", 'checkouts': "'checkout'"} %}

{% for stream, given in streams.items() -%}
select
    stream, message_id, landed_at, published_at, event_key, event_id,
    {{ event_types.get(stream, 'event_type') }} as event_type,
    event_at, event_date
    {%- for attribute in event_attributes() %},
    {{ '' if attribute in given else 'null as ' }}{{ attribute }}
    {%- endfor %}
from {{ ref('stg_' ~ stream) }}
where reject_reason is null
{% if not loop.last %}union all{% endif %}
{% endfor %}
