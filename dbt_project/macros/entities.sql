{#- The models of an entity: every version with the time it was valid, the latest, and those that are not deleted. -#}

{#- The columns that a contract gives an entity, its id first. -#}
{% macro entity_columns(stream) %}
    {% set contract = contracts()[stream] %}
    {% set id, others = [], [] %}
    {% for field in contract.fields %}
        {% do id.append(field.name) if field.path == contract.key %}
        {% do others.append(field.name) if field.path not in contract.own and field.personal != 'drop' %}
    {% endfor %}
    {{ return(id + others) }}
{% endmacro %}

{#- Every version with the time it was valid (SCD2). Exact whatever arrives late: all versions of an entity with a new one
    are put in order again. -#}
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

-- of copies of a version the first in the log counts
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

-- A tombstone deletes every version before it in the log, also one whose clock was ahead of the broker's: a version of
-- 10:05 before a tombstone of 10:00 ends at 10:05. A version after the tombstone in the log brings the entity back, from
-- 10:05 on, unless it is older than the tombstone: a late version of 9:00 belongs to the time before it.
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

-- Of versions that start at one instant those after a tombstone come last, then the newer, then the later in the log.
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

{#- The latest version of each, deleted ones (deleted_at) included; what a tombstone removed is gone. -#}
{% macro entity_latest(stream) %}
select {{ entity_columns(stream) | join(', ') }}, created_at, updated_at, deleted_at
from {{ ref('dim_' ~ stream ~ '_history') }}
where is_current and not is_tombstone
{% endmacro %}

{#- Those that are not deleted, as they are now. -#}
{% macro entity_current(stream) %}
select {{ entity_columns(stream) | join(', ') }}, created_at, updated_at
from {{ ref('int_' ~ stream ~ '_latest') }}
where deleted_at is null
{% endmacro %}

{#- Before a snapshot of an entity: what its contract drops or hashes goes from the rows of earlier builds too. dbt keeps
    the columns of a snapshot forever, and no full refresh rebuilds it. -#}
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
