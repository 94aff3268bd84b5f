{#- What stands the same in every staging model. -#}

{#- Whether a time can be that of a message published then: not before var earliest_event_at, at most a day ahead.
    Kafka's producers set published_at freely: nothing is of the year 9999, which stands for "until now" in histories. -#}
{% macro is_plausible(time) -%}
    (
        {{ time }} >= timestamp '{{ var("earliest_event_at") }}' and {{ time }} < timestamp '9999-01-01'
        and {{ time }} <= published_at + interval 1 day
    )
{%- endmacro %}

{#- Identity of an event: deduplication prunes by the date, since a copy carries the same time. -#}
{% macro event_key() -%}
    case when reject_reason is null then {{ hash_of([
        'stream', 'event_id', 'cast(cast(event_at as date) as ' ~ dbt.type_string() ~ ')'
    ]) }} end
{%- endmacro %}

{#- Identity of a version of an entity. -#}
{% macro version_key(id) -%}
    case when reject_reason is null then {{ hash_of([
        'stream', id, 'cast(' ~ epoch_microseconds('updated_at') ~ ' as ' ~ dbt.type_string() ~ ')',
        "case when is_tombstone then 'tombstone' else 'version' end"
    ]) }} end
{%- endmacro %}

{#- Says more of a rejected message than its reason does. -#}
{% macro reject_detail(time_text) -%}
    case
        when reject_reason = 'malformed_json' then case
            when payload is null then 'no payload'
            when {{ utf8_text('payload') }} is null then 'not UTF-8'
            else 'not a JSON object'
        end
        when reject_reason = 'invalid:timestamp' then {{ time_text }}
    end
{%- endmacro %}
