-- The versions of all entities, from their histories. The last select adds no rows: it keeps the SQL valid in a project
-- without entities.
{% for stream, history in entity_streams().items() -%}
select '{{ stream }}' as stream, version_key, message_id, landed_at from {{ ref(history) }}
union all
{% endfor -%}
select stream, null as version_key, message_id, landed_at from {{ ref('int_raw_messages') }}
where false
