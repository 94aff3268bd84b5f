-- Messages that `recover` landed again. The id of each names its original: recover/<landed_at>/<message_id>, where
-- landed_at has 26 characters.
{% for stream in streams() -%}
select
    stream, message_id, landed_at, substr(message_id, 36) as original_message_id,
    cast(substr(message_id, 9, 26) as timestamp) as original_landed_at,
    {{ json_scalar('attributes', json_path_of('recovered_from.patch')) }} as recovery_patch
from {{ source('raw', stream) }}
where source = 'recover'
{% if not loop.last %}union all{% endif %}
{% endfor %}
