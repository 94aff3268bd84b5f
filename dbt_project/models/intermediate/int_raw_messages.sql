-- Every landed message of every stream, by its key.
{%- set streams = [
    'web_events', 'page_views', 'clicks', 'checkouts', 'ecom_events', 'post_events', 'users', 'products', 'posts'
] %}

{% for stream in streams -%}
select stream, message_id, landed_at from {{ source('raw', stream) }}
{% if not loop.last %}union all{% endif %}
{% endfor %}
