{#- The models of an entity: its history, its latest versions, and its current rows. -#}

{#- Returns the columns of an entity by its contract, the id first. -#}
{% macro entity_columns(stream) %}
    {% set contract = contracts()[stream] %}
    {% set id, others = [], [] %}
    {% for field in contract.fields %}
        {% do id.append(field.name) if field.path == contract.key %}
        {% do others.append(field.name) if field.path not in contract.own and field.personal != 'drop' %}
    {% endfor %}
    {{ return(id + others) }}
{% endmacro %}

{#- Every version with the time in which it was valid (SCD2). The order of arrival does not matter: all versions of an entity
    with a new version are ordered again. -#}
{% macro entity_history(stream) %}
{%- set id, others = entity_columns(stream)[0], entity_columns(stream)[1:] -%}
{%- set columns = [id] + others + [
    'is_tombstone', 'created_at', 'updated_at', 'deleted_at', 'message_id', 'published_at', 'landed_at'
] %}

with new_versions as (
    select version_key, {{ columns | join(', ') }}
    from {{ ref('stg_' ~ stream) }}
    where reject_reason is null and {{ is_new() }}
),

all_versions as (
    select * from new_versions
    {% if is_incremental() %}
    union all
    select version_key, {{ columns | join(', ') }}
    from {{ this }}
    where {{ id }} in (select new_versions.{{ id }} from new_versions)
    {% endif %}
),

-- of several copies of a version, the first in the log counts
versions as (
    select * from all_versions
    qualify row_number() over (partition by version_key order by {{ log_order() }}) = 1
),

logged as (
    select *, row_number() over (partition by {{ id }} order by {{ log_order() }}) as log_number
    from versions
),

before_each as (
    select
        *,
        max(updated_at) over (partition by {{ id }} order by log_number) as newest_updated_at,
        max(case when is_tombstone then updated_at end) over (
            partition by {{ id }} order by log_number
        ) as newest_tombstone_at,
        count(case when is_tombstone then 1 end) over (partition by {{ id }} order by log_number) as tombstones
    from logged
),

-- When each version takes effect. A tombstone deletes every version before it in the log, even one with a later time, which
-- comes from another clock: if a version of 10:05 is before a tombstone of 10:00, the deletion takes effect at 10:05. A
-- version after the tombstone in the log restores the entity, at the earliest at 10:05. One that is older than the
-- tombstone, say of 9:00, arrived late: it takes effect at 9:00.
effective as (
    select
        *,
        case
            when is_tombstone then newest_updated_at
            when updated_at >= newest_tombstone_at then greatest(
                updated_at,
                max(case when is_tombstone then newest_updated_at end) over (
                    partition by {{ id }} order by log_number
                )
            )
            else updated_at
        end as effective_at
    from before_each
),

-- Versions that take effect at the same time are ordered by the number of tombstones before them, then by updated_at,
-- then as in the log.
ordered as (
    select
        *,
        row_number() over (
            partition by {{ id }} order by effective_at, tombstones, updated_at, log_number
        ) as version_number,
        lead(effective_at) over (
            partition by {{ id }} order by effective_at, tombstones, updated_at, log_number
        ) as next_effective_at
    from effective
)

select
    version_key,
    {{ id }},
    version_number,
    {%- for column in others %}
    {{ column }},
    {%- endfor %}
    is_tombstone,
    is_tombstone or deleted_at is not null as is_deleted,
    created_at,
    updated_at,
    deleted_at,
    case when version_number = 1 and created_at < effective_at then created_at else effective_at end as valid_from,
    coalesce(next_effective_at, timestamp '9999-12-31') as valid_to,
    next_effective_at is null as is_current,
    message_id,
    published_at,
    landed_at
from ordered
{% endmacro %}

{#- The latest version of each entity, with soft-deleted ones (deleted_at), without those that a tombstone deleted. -#}
{% macro entity_latest(stream) %}
select {{ entity_columns(stream) | join(', ') }}, created_at, updated_at, deleted_at
from {{ ref('dim_' ~ stream ~ '_history') }}
where is_current and not is_tombstone
{% endmacro %}

{#- The latest version of each entity that is not deleted. -#}
{% macro entity_current(stream) %}
select {{ entity_columns(stream) | join(', ') }}, created_at, updated_at
from {{ ref('int_' ~ stream ~ '_latest') }}
where deleted_at is null
{% endmacro %}

{#- Pre-hook of snapshots: drops columns, and hashes values, of earlier builds that the contract of the entity now drops or
    hashes. dbt itself keeps the columns of a snapshot forever, and a full refresh does not rebuild it. -#}
{% macro forget_personal_values() %}
    {% set contracted = contracts() %}
    {% set stream = model.name.removeprefix('dim_').removesuffix('_snapshot') %}
    {% set snapshot = load_relation(this) if execute and stream in contracted else none %}
    {% set parent = graph.nodes[model.depends_on.nodes[0]] if snapshot is not none else none %}
    {% set latest = adapter.get_relation(parent.database, parent.schema, parent.alias) if parent is not none else none %}
    {% if latest is not none %}
        {% set hashed = contracted[stream].fields | selectattr('personal', 'equalto', 'hash') | map(attribute='name') | list %}
        {% set kept = adapter.get_columns_in_relation(latest) | map(attribute='name') | list
            + get_snapshot_table_column_names().values() | list %}
        {% set gone = [] %}
        {% for column in adapter.get_columns_in_relation(snapshot) %}
            {% if column.name not in kept or (column.name in hashed and not column.is_string()) %}
                {% do gone.append(column) %}
            {% elif column.name in hashed %}
                {% set is_hash = 'length(' ~ column.name ~ ") = 64 and translate(" ~ column.name ~ ", '0123456789abcdef', '') = ''" %}
                {% do run_query(
                    'update ' ~ snapshot ~ ' set ' ~ column.name ~ ' = ' ~ pseudonym(column.name)
                    ~ ' where not (' ~ is_hash ~ ')'
                ) %}
            {% endif %}
        {% endfor %}
        {% if gone %}
            {% do log(
                model.name ~ ' loses ' ~ gone | map(attribute='name') | join(', ') ~ ', which the contract of ' ~ stream
                ~ ' does not keep', info=true
            ) %}
            {% do alter_relation_add_remove_columns(snapshot, none, gone) %}
        {% endif %}
    {% endif %}
{% endmacro %}
