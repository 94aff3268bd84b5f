{#- Staging of the change log of an entity by its contract: one row per message, parsed once. A message is a version of an
    entity, or a tombstone (no body) that deletes it: then the id is in the message key, and the time is published_at. -#}
{% macro staged_versions(stream) %}
{%- set contract = contracts()[stream] -%}
{%- set paths, json_paths = paths_of(contract) -%}
{%- set field_at = {} -%}
{%- for field in contract.fields -%}{%- do field_at.update({field.path: field}) -%}{%- endfor -%}
{%- set fields = own_fields(contract) -%}
{%- set id = dict(field_at[contract.key], type='id') -%}
{%- set created = field_at.get(contract.created) -%}
{#- fields of the contract: the time of a deletion, and the flag of a deleted entity -#}
{%- set deleted, flag = {}, {} -%}
{%- for path in contract.deleted -%}
    {%- do (deleted if field_at[path].type == 'timestamp' else flag).update(field_at[path]) -%}
{%- endfor -%}
{#- maps the path of a field to the column that is null if the body has no value for it -#}
{%- set text_columns = {} -%}
{%- for field in fields -%}
    {%- do text_columns.update({field.path: text_column(field)}) -%}
{%- endfor -%}
{%- for field, text in [(created, 'created_text'), (deleted, 'deleted_text'), (flag, 'is_deleted_text'), (id, id.name)] if field -%}
    {%- do text_columns.update({field.path: text}) -%}
{%- endfor -%}
{%- for path in contract.time -%}
    {%- do text_columns.update({path: 'updated_text'}) -%}
{%- endfor -%}
{%- set change = {} -%}
{%- if contract.envelope == 'debezium' -%}
    {%- do change.update({
        'op': 'nullif(' ~ change_value('op') ~ ", '')",
        'text': 'coalesce(nullif(' ~ change_value('source.ts_ms') ~ ", ''), nullif(" ~ change_value('ts_ms') ~ ", ''))"
    }) -%}
{%- endif -%}
{#- a tombstone has no body, and a change that deletes may have only the id: required fields do not apply to either -#}
{%- set has_body = "not is_tombstone and op != 'd'" if change else 'not is_tombstone' %}

with messages as (
    select
        stream,
        message_id,
        landed_at,
        coalesce(published_at, landed_at) as published_at,
        {%- set key = 'key' if contract.format == 'json' else 'coalesce(decoded_key, key)' %}
        {{ key }} as key,
        {{ utf8_text(key) }} as key_text,
        payload,
        {%- if contract.format != 'json' %}
        decode_error,
        {%- endif %}
        {{ utf8_text(body_bytes(contract)) }} as body_text
    from {{ source('raw', stream) }}
    where {{ is_new() }}
),

parsed as (
    select
        *,
        {{ parse_json('body_text', paths, json_paths, contract) }} as body,
        {{ key_id('key_text', id.path) }} as id_of_key
    from messages
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        key,
        payload,
        {{- ' decode_error,' if contract.format != 'json' }}
        payload is null as is_tombstone,
        payload is not null and body is null as is_malformed,
        {{ unlisted_fields('body_text', contract) }} as unlisted_fields,
        {%- if change %}
        {{ change.op }} as op,
        {%- endif %}
        case when payload is null then id_of_key else {{ text_of(id, contract) }} end as {{ id.name }},
        case when payload is not null then id_of_key end as key_id,
        {{ texts_and_values(fields, contract) }}
        {{ text_of(created, contract) if created else 'cast(null as ' ~ dbt.type_string() ~ ')' }} as created_text,
        {{ value_of(created, text_of(created, contract)) if created else 'cast(null as timestamp)' }} as created_at,
        {%- set row_text = first_time(contract, field_at, values=false) if contract.time -%}
        {%- set row_time = first_time(contract, field_at, values=true) if contract.time %}
        {#- The time of a version: for a tombstone published_at; for a deletion by Debezium, or if the contract has no time
            field, the time of the change; otherwise the time field. -#}
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
        {{ text_of(deleted, contract) if deleted else 'cast(null as ' ~ dbt.type_string() ~ ')' }} as deleted_text,
        {{ value_of(deleted, text_of(deleted, contract)) if deleted else 'cast(null as timestamp)' }} as deleted_time,
        {{ text_of(flag, contract) if flag else 'cast(null as ' ~ dbt.type_string() ~ ')' }} as is_deleted_text
    from parsed
),

deleted as (
    select
        *,
        case
            {%- if change %}
            when op = 'd' then updated_at
            {%- endif %}
            -- a change log may have only a flag for deleted entities
            when deleted_time is null and {{ to_boolean('is_deleted_text') }} then updated_at
            else deleted_time
        end as deleted_at
    from renamed
),

validated as (
    select
        *,
        case
            {%- if contract.format != 'json' %}
            when decode_error is not null then 'undecodable:' || decode_error
            {%- endif %}
            when is_malformed then 'malformed_json'
            {%- if change %}
            when op is null and not is_tombstone then 'missing:op'
            when op not in ('c', 'u', 'r', 'd') then 'invalid:op'
            {%- endif %}
            when is_tombstone and octet_length(key) > 0 and {{ id.name }} is null then 'invalid:key'
            when {{ id.name }} is null then 'missing:{{ id.path }}'
            when updated_text is null and {{ has_body }} then 'missing:{{ contract.time[0] if contract.time else 'ts_ms' }}'
            {%- if change %}
            when updated_text is null and op = 'd' then 'missing:ts_ms'
            {%- endif %}
            {%- for field in contract.fields if field.required and field.path not in [id.path] + contract.time %}
            when {{ text_columns[field.path] }} is null and {{ has_body }} then 'missing:{{ field.path }}'
            {%- endfor %}
            {%- for group in contract.one_of %}
            when {{ has_body }} and coalesce(
                {%- for path in group -%}
                cast({{ text_columns[path] }} as {{ dbt.type_string() }}){{ ', ' if not loop.last }}
                {%- endfor -%}
            ) is null then 'missing:{{ group[0] }}'
            {%- endfor %}
            when updated_at is null or not {{ is_plausible('updated_at') }} then 'invalid:timestamp'
            when created_text is not null and (created_at is null or not {{ is_plausible('created_at') }})
                then 'invalid:{{ contract.created }}'
            when deleted_text is not null and (deleted_time is null or not {{ is_plausible('deleted_time') }})
                then 'invalid:{{ deleted.path }}'
            {%- if flag %}
            when is_deleted_text is not null and {{ to_boolean('is_deleted_text') }} is null then 'invalid:{{ flag.path }}'
            {%- endif %}
            {%- if id.accepted %}
            when not is_tombstone and {{ id.name }} not in ({{ literals(id.accepted) }}) then 'invalid:{{ id.path }}'
            {%- endif %}
            {{ reject_invalid(fields) }}
            {{ reject_long([id] + fields) }}
        end as reject_reason
    from deleted
)

select
    stream,
    message_id,
    {% set contents = [] -%}
    {%- for field in fields -%}{%- do contents.append(identity_text(field)) -%}{%- endfor -%}
    {{ version_key(stream, id.name, contents) }} as version_key,
    {{ id.name }},
    {{ kept_columns(fields, stream) }}
    is_tombstone,
    created_at,
    updated_at,
    deleted_at,
    published_at,
    landed_at,
    reject_reason,
    {{ reject_detail('updated_text', key='key', values=dict(checked_texts(contract, text_columns), **({'op': 'op'} if change else {}))) }} as reject_detail,
    key is not null and not is_tombstone and coalesce(key_id != {{ id.name }}, true) as is_key_mismatch,
    case when reject_reason is not null then payload end as rejected_payload,
    unlisted_fields
from validated
{% endmacro %}
