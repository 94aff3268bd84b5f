-- All landed messages of all streams; (message_id, landed_at) identifies one.
{% for stream in streams() -%}
select stream, message_id, landed_at from {{ source('raw', stream) }}
{% if not loop.last %}union all{% endif %}
{% endfor %}
