{#-
  The incremental rule: new rows are those with landed_at above this model's own watermark and up to the least of its
  parents' watermarks, per stream. docs/architecture.md#the-incremental-rule gives the reasons.
-#}

{#- `where {{ is_new() }}`: rows, of an aliased relation if one is given, that this model has not read yet. Needs the
    columns stream and landed_at. The least of the watermarks is implied by the rest: it stands for itself because
    BigQuery prunes by a predicate that names the partition column and no other. -#}
{% macro is_new(alias=none) -%}
    {%- set new = [] -%}
    {%- set watermarks = [] -%}
    {%- set of = alias ~ '.' if alias else '' -%}
    {%- for bound in read_bounds() if bound.upto and (not is_incremental() or not bound.watermark or bound.upto > bound.watermark) -%}
        {%- set watermark = bound.watermark if is_incremental() and bound.watermark else none -%}
        {%- set after = ' and ' ~ of ~ "landed_at > timestamp '" ~ watermark ~ "'" if watermark else '' -%}
        {%- do new.append('(' ~ of ~ "stream = '" ~ bound.stream ~ "'" ~ after ~ ' and ' ~ of ~ "landed_at <= timestamp '" ~ bound.upto ~ "')") -%}
        {%- do watermarks.append(watermark) -%}
    {%- endfor -%}
    ({{ new | join(' or ') if new else 'false' }})
    {%- if watermarks and none not in watermarks %} and {{ of }}landed_at > timestamp '{{ watermarks | min }}' {%- endif -%}
{%- endmacro %}

{#- `where {{ is_in_build() }}`: rows up to this model's bound, new or not. -#}
{% macro is_in_build() -%}
    {%- set landed = [] -%}
    {%- for bound in read_bounds() if bound.upto -%}
        {%- do landed.append("(stream = '" ~ bound.stream ~ "' and landed_at <= timestamp '" ~ bound.upto ~ "')") -%}
    {%- endfor -%}
    ({{ landed | join(' or ') if landed else 'false' }})
{%- endmacro %}

{#- For each stream of this model: (stream, watermark, upto), the times as text or none. -#}
{% macro read_bounds() %}
    {% if not has_state() %}
        {{ return([]) }}
    {% endif %}
    {% set parents = [] %}
    {% for parent in incremental_parents(model.unique_id) %}
        {% for stream in streams_of(parent) %}
            {% do parents.append("select '" ~ node_name(parent) ~ "' as node, '" ~ stream ~ "' as stream") %}
        {% endfor %}
    {% endfor %}
    {% set bounds %}
        with latest as (
            select node, stream, max(upto) as upto from {{ state_table('watermarks') }} group by node, stream
        )

        select
            parents.stream,
            {{ timestamp_text('max(own.upto)') }} as watermark,
            case when count(latest.upto) = count(*) then {{ timestamp_text('min(latest.upto)') }} end as upto
        from ({{ parents | join(' union all ') }}) as parents
        left join latest on latest.node = parents.node and latest.stream = parents.stream
        left join latest as own on own.node = '{{ model.name }}' and own.stream = parents.stream
        group by parents.stream
        order by parents.stream
    {% endset %}
    {{ return(run_query(bounds).rows if parents else []) }}
{% endmacro %}

{#- The nearest incremental models and raw sources that a node reads, through views. -#}
{% macro incremental_parents(unique_id) %}
    {% set found = [] %}
    {% set todo = graph.nodes[unique_id].depends_on.nodes | list %}
    {% for _ in range(1000) if todo %}
        {% set id = todo.pop() %}
        {% if id.startswith('source.') or (graph.nodes[id].config.materialized == 'incremental') %}
            {% do found.append(id) if id not in found %}
        {% else %}
            {% do todo.extend(graph.nodes[id].depends_on.nodes) %}
        {% endif %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{#- The raw streams that a node is made from. -#}
{% macro streams_of(unique_id) %}
    {% if unique_id.startswith('source.') %}
        {{ return([graph.sources[unique_id].name]) }}
    {% endif %}
    {% set streams = [] %}
    {% set seen = [] %}
    {% set todo = [unique_id] %}
    {% for _ in range(1000) if todo %}
        {% set id = todo.pop() %}
        {% if id.startswith('source.') %}
            {% do streams.append(graph.sources[id].name) if graph.sources[id].name not in streams %}
        {% elif id not in seen %}
            {% do seen.append(id) %}
            {% do todo.extend(graph.nodes[id].depends_on.nodes) %}
        {% endif %}
    {% endfor %}
    {{ return(streams | sort) }}
{% endmacro %}

{% macro node_name(unique_id) %}
    {{ return('raw' if unique_id.startswith('source.') else graph.nodes[unique_id].name) }}
{% endmacro %}

{#- Post-hook: after the rows are in, remember how far they were read. A kill in between repeats idempotent work. -#}
{% macro advance_watermark() %}
    {% if execute and model.config.materialized == 'incremental' %}
        {% set bounds = read_bounds() %}
        {% set is_rebuilt = should_full_refresh() or not bounds | selectattr('watermark') | list %}
        {% if is_rebuilt %}
            {% do run_query(record_rebuild('done')) %}
            {% do log_touched_partitions(['null']) %}
        {% endif %}
        {% set rows = [] %}
        {% for bound in bounds if bound.upto and (is_rebuilt or bound.upto != bound.watermark) %}
            {% do rows.append(
                "select '" ~ model.name ~ "', '" ~ bound.stream ~ "', timestamp '" ~ bound.upto ~ "', '"
                ~ settings_of(model.unique_id) ~ "', " ~ now_utc()
            ) %}
        {% endfor %}
        {% if rows %}
            insert into {{ state_table('watermarks') }} (node, stream, upto, settings, recorded_at)
            {{ rows | join(' union all ') }}
        {% endif %}
    {% endif %}
{% endmacro %}
