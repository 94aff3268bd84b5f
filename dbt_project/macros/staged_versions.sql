{#- The staging of a change log as its contract says: one row a message, parsed once. A message is a version of an entity,
    or its deletion by a tombstone, which has its id in the message key and its time in published_at. -#}
{% macro staged_versions(stream) %}
{%- set contract = contracts()[stream] -%}
{%- set paths, json_paths = paths_of(contract) -%}
{%- set by_path = {} -%}
{%- for field in contract.fields -%}{%- do by_path.update({field.path: field}) -%}{%- endfor -%}
{%- set columns = columns_of(contract) -%}
{%- set id = by_path[contract.key] -%}
{%- set created = by_path.get(contract.created) -%}
{%- set change = {} -%}
{%- if contract.envelope == 'debezium' -%}
    {%- do change.update({
        'op': "nullif(" ~ change_value('op') ~ ", '')",
        'text': 'coalesce(' ~ change_value('source.ts_ms') ~ ', ' ~ change_value('ts_ms') ~ ')'
    }) -%}
{%- endif %}

with messages as (
    select stream, message_id, landed_at, coalesce(published_at, landed_at) as published_at, key, payload
    from {{ source('raw', stream) }}
    where {{ is_new() }}
),

parsed as (
    select *, {{ parse_json('payload', paths, json_paths) }} as body from messages
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        key,
        payload,
        payload is null as is_tombstone,
        payload is not null and body is null as is_malformed,
        {%- if change %}
        {{ change.op }} as op,
        {%- endif %}
        case when payload is null then {{ key_id(id.path) }} else {{ text_of(id, contract) }} end as {{ id.name }},
        case when payload is not null and key is not null then {{ key_id(id.path) }} end as key_id,
        {{ texts_and_values(columns, contract) }}
        {{ text_of(created, contract) if created else 'cast(null as ' ~ dbt.type_string() ~ ')' }} as created_text,
        {{ value_of(created, text_of(created, contract)) if created else 'cast(null as timestamp)' }} as created_at,
        {%- set row_text = first_time(contract, by_path, values=false) if contract.time -%}
        {%- set row_time = first_time(contract, by_path, values=true) if contract.time %}
        {%- if change %}
        {%- set is_of_change = change.op ~ " = 'd'" if contract.time else 'true' %}
        case when {{ is_of_change }} then {{ change.text }}{% if contract.time %} else {{ row_text }}{% endif %} end as updated_text,
        case
            when payload is null then published_at
            when {{ is_of_change }} then {{ epoch_to_timestamp(change.text, 1000) }}
            {%- if contract.time %}
            else {{ row_time }}
            {%- endif %}
        end as updated_at,
        {%- else %}
        {{ row_text }} as updated_text,
        case when payload is null then published_at else {{ row_time }} end as updated_at,
        {%- endif %}
        {{ deletion(contract, by_path, change) }}
    from parsed
),

deleted as (
    select
        *,
        -- a change log may say that it is deleted and not when
        case when is_deleted_now then coalesce(deleted_time, updated_at) else deleted_time end as deleted_at
    from renamed
),

judged as (
    select
        *,
        case
            when is_malformed then 'malformed_json'
            {%- if change %}
            when op is null and not is_tombstone then 'missing:op'
            when op not in ('c', 'u', 'r', 'd') then 'invalid:op'
            {%- endif %}
            when is_tombstone and octet_length(key) > 0 and {{ id.name }} is null then 'invalid:key'
            when {{ id.name }} is null then 'missing:{{ id.path }}'
            when updated_text is null and not is_tombstone then 'missing:{{ contract.time[0] if contract.time else 'ts_ms' }}'
            {%- for field in columns if field.required %}
            when {{ field.name ~ '_text' if has_text(field) else field.name }} is null and not is_tombstone
                {{- " and op != 'd'" if change }} then 'missing:{{ field.path }}'
            {%- endfor %}
            {%- for group in contract.one_of %}
            when not is_tombstone{{ " and op != 'd'" if change }} and coalesce(
                {%- for path in group -%}
                cast({{ by_path[path].name ~ '_text' if has_text(by_path[path]) else by_path[path].name }} as {{ dbt.type_string() }}){{ ', ' if not loop.last }}
                {%- endfor -%}
            ) is null then 'missing:{{ group[0] }}'
            {%- endfor %}
            when updated_at is null or not {{ is_plausible('updated_at') }} then 'invalid:timestamp'
            when created_text is not null and (created_at is null or not {{ is_plausible('created_at') }})
                then 'invalid:{{ contract.created }}'
            when deleted_text is not null and (deleted_time is null or not {{ is_plausible('deleted_time') }})
                then 'invalid:{{ contract.deleted[0] if contract.deleted else 'deleted_at' }}'
            {{ reject_invalid(columns) }}
            {{ reject_long([id] + columns) }}
        end as reject_reason
    from deleted
)

select
    stream,
    message_id,
    {% set contents = [] -%}
    {%- for field in columns -%}{%- do contents.append(as_text(field)) -%}{%- endfor -%}
    {{ version_key(id.name, contents) }} as version_key,
    {{ id.name }},
    {{ kept_columns(columns, stream) }}
    is_tombstone,
    created_at,
    updated_at,
    deleted_at,
    published_at,
    landed_at,
    reject_reason,
    {{ reject_detail('updated_text', key='key') }} as reject_detail,
    key is not null and not is_tombstone and coalesce(key_id != {{ id.name }}, true) as is_key_mismatch,
    case when reject_reason is not null then payload end as rejected_payload
from judged
{% endmacro %}

{#- What a version says of its deletion: deleted_text and deleted_time, when, and is_deleted_now, that it is deleted. -#}
{% macro deletion(contract, by_path, change) -%}
    {%- set time, flags = {}, [] -%}
    {%- for path in contract.deleted -%}
        {%- if by_path[path].type == 'timestamp' -%}
            {%- do time.update(by_path[path]) -%}
        {%- else -%}
            {%- do flags.append('coalesce(' ~ to_boolean(text_of(by_path[path], contract)) ~ ', false)') -%}
        {%- endif -%}
    {%- endfor -%}
    {%- do flags.append("coalesce(" ~ change.op ~ " = 'd', false)") if change -%}
    {{ text_of(time, contract) if time else 'cast(null as ' ~ dbt.type_string() ~ ')' }} as deleted_text,
    {{ value_of(time, text_of(time, contract)) if time else 'cast(null as timestamp)' }} as deleted_time,
    {{ flags | join(' or ') if flags else 'false' }} as is_deleted_now
{%- endmacro %}
