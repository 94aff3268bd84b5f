{#-
  The incremental rule: new rows are those with landed_at above this model's own watermark and up to the lowest watermark
  of its parents, for each stream. docs/architecture.md#the-incremental-rule gives the reasons.
-#}

{#-
  `where {{ is_new() }}`: the rows that this model has not read yet, of a relation with stream and landed_at. The last
  condition, on the lowest watermark of all streams, follows from the others. It is there for BigQuery, which skips partitions
  only by a condition on the partition column alone.
-#}
{% macro is_new() -%}
    {%- set new = [] -%}
    {%- set watermarks = [] -%}
    {%- set is_increment = is_incremental() -%}
    {%- for bound in read_bounds() if bound.upper_bound and (not is_increment or not bound.watermark or bound.upper_bound > bound.watermark) -%}
        {%- set watermark = bound.watermark if is_increment and bound.watermark else none -%}
        {%- set after = " and landed_at > timestamp '" ~ watermark ~ "'" if watermark else '' -%}
        {%- do new.append("(stream = '" ~ bound.stream ~ "'" ~ after ~ " and landed_at <= timestamp '" ~ bound.upper_bound ~ "')") -%}
        {%- do watermarks.append(watermark) -%}
    {%- endfor -%}
    ({{ new | join(' or ') if new else 'false' }})
    {%- if watermarks and none not in watermarks %} and landed_at > timestamp '{{ watermarks | min }}' {%- endif -%}
{%- endmacro %}

{#- `where {{ is_in_build() }}`: rows that this model may read, new or not: those up to its upper bounds. -#}
{% macro is_in_build() -%}
    {%- set landed = [] -%}
    {%- for bound in read_bounds() if bound.upper_bound -%}
        {%- do landed.append("(stream = '" ~ bound.stream ~ "' and landed_at <= timestamp '" ~ bound.upper_bound ~ "')") -%}
    {%- endfor -%}
    ({{ landed | join(' or ') if landed else 'false' }})
{%- endmacro %}

{#- Returns (stream, watermark, upper_bound) for each stream of this model. The times are texts. The watermark is none if this
    model has not read the stream yet, the upper bound if one of its parents has not. -#}
{% macro read_bounds() %}
    {% if not has_state() %}
        {{ return([]) }}
    {% endif %}
    {% set watermarks = latest_watermarks() %}
    {% set upper_bounds = {} %}
    {% for parent in incremental_parents(model.unique_id) %}
        {% set read = watermarks.get(node_name(parent), {}) %}
        {% for stream in streams_of(parent) %}
            {% do upper_bounds.setdefault(stream, []).append(read.get(stream)) %}
        {% endfor %}
    {% endfor %}
    {% set bounds = [] %}
    {% for stream in upper_bounds | sort %}
        {% do bounds.append({
            'stream': stream,
            'watermark': watermarks.get(model.name, {}).get(stream),
            'upper_bound': none if none in upper_bounds[stream] else upper_bounds[stream] | min
        }) %}
    {% endfor %}
    {{ return(bounds) }}
{% endmacro %}

{#- Returns, by node and stream, the time as text up to which a node has read a stream. Read once per run of dbt, and kept in
    `graph`, which all nodes of a run share; advance_watermark keeps it up to date. -#}
{% macro latest_watermarks() %}
    {% if graph.get('watermarks_of_run') != invocation_id %}
        {% set found = {} %}
        {% for row in run_query(
            'select node, stream, ' ~ timestamp_text('max(upper_bound)') ~ ' as upper_bound from ' ~ state_table('watermarks')
            ~ ' group by node, stream'
        ).rows %}
            {% do found.setdefault(row.node, {}).update({row.stream: row.upper_bound}) %}
        {% endfor %}
        {% do graph.update({'watermarks': found, 'watermarks_of_run': invocation_id}) %}
    {% endif %}
    {{ return(graph.watermarks) }}
{% endmacro %}

{#- Returns the ids of the nearest incremental models and raw sources that a node reads, directly or through views. Kept in
    `graph`, as in streams_of: every model asks several times. -#}
{% macro incremental_parents(unique_id) %}
    {% set known = graph.setdefault('incremental_parents', {}) %}
    {% if unique_id not in known %}
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
        {% do known.update({unique_id: found}) %}
    {% endif %}
    {{ return(known[unique_id]) }}
{% endmacro %}

{#- Returns the names of the streams that a node is made from. -#}
{% macro streams_of(unique_id) %}
    {% set known = graph.setdefault('streams_of', {}) %}
    {% if unique_id not in known %}
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
        {% do known.update({unique_id: streams | sort}) %}
    {% endif %}
    {{ return(known[unique_id]) }}
{% endmacro %}

{#- Returns the name of a node in the table of watermarks, where 'raw' stands for all raw tables. -#}
{% macro node_name(unique_id) %}
    {{ return('raw' if unique_id.startswith('source.') else graph.nodes[unique_id].name) }}
{% endmacro %}

{#- Post-hook: records how far the model has read each stream. It runs after the rows are written: a build killed in
    between reads the same rows again, and writing them twice changes nothing. -#}
{% macro advance_watermark() %}
    {% if execute and model.config.materialized == 'incremental' %}
        {% set bounds = read_bounds() %}
        {% set is_rebuilt = should_full_refresh() or (bounds and not bounds | selectattr('watermark') | list) %}
        {% if is_rebuilt %}
            {% do run_query(record_rebuild('done')) %}
            {% do record_touched_partitions(['null']) %}
        {% endif %}
        {% set rows = [] %}
        {% set settings = settings_of(model.unique_id) %}
        {% for bound in bounds if bound.upper_bound and (is_rebuilt or bound.upper_bound != bound.watermark) %}
            {% do rows.append(
                "select '" ~ model.name ~ "', '" ~ bound.stream ~ "', timestamp '" ~ bound.upper_bound ~ "', '"
                ~ settings ~ "', " ~ now_utc()
            ) %}
            {% do latest_watermarks().setdefault(model.name, {}).update({bound.stream: bound.upper_bound}) %}
        {% endfor %}
        {% if rows %}
            insert into {{ state_table('watermarks') }} (node, stream, upper_bound, settings, recorded_at)
            {{ rows | join(' union all ') }}
        {% endif %}
    {% endif %}
{% endmacro %}
