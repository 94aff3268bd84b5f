-- Every landed message of every stream, by (message_id, landed_at).
{% for stream in streams() -%}
select stream, message_id, landed_at from {{ source('raw', stream) }}
{% if not loop.last %}union all{% endif %}
{% endfor %}
