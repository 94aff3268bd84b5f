{#-
  Rebuilds of all rows of a model: with --full-refresh, when its table is missing, or when an incremental model that it reads
  was rebuilt after it. So a rebuild reaches everything made from a model (docs/architecture.md#the-incremental-rule). The first
  build of staging of a new stream rebuilds nothing else: everything that reads it finds only new rows.
-#}

{#- dbt calls this macro to decide whether to rebuild a model. -#}
{% macro should_full_refresh() %}
    {{ return(dbt.should_full_refresh() or model.unique_id in graph.get('planned_rebuilds', [])) }}
{% endmacro %}

{#- At the start of a build: finds the models that it will rebuild without --full-refresh. The list is kept in `graph`, which
    all nodes of a build share, so that the warehouse is queried once and not by every model. -#}
{% macro plan_rebuilds() %}
    {% set begun, done, code = {}, {}, {} %}
    {% set steps %}
        select model, step, code, recorded_at
        from {{ state_table('rebuilds') }}
        qualify row_number() over (partition by model, step order by recorded_at desc) = 1
    {% endset %}
    {% for row in run_query(steps).rows %}
        {% do (begun if row.step == 'begun' else done).update({row.model: row.recorded_at}) %}
        {% do code.update({row.model: row.code}) if row.step == 'done' %}
    {% endfor %}
    {% set planned, missing = [], [] %}
    {% do graph.update({'planned_rebuilds': planned}) %}
    {% for id in incremental_models_in_order() if id in selected_resources %}
        {% set node = graph.nodes[id] %}
        {% set relation = adapter.get_relation(node.database, node.schema, node.alias) %}
        {% set parents = [] %}
        {% for parent in incremental_parents(id) if not parent.startswith('source.') %}
            {% set name = graph.nodes[parent].name %}
            {% set has_read = streams_of(parent) | select('in', watermarks_of(node.name)) | list %}
            {% if has_read and (parent in planned or (name in begun and (node.name not in done or done[node.name] < begun[name]))) %}
                {% do parents.append(name) %}
            {% endif %}
        {% endfor %}
        {% if relation is none %}
            {% do planned.append(id) %}
            {% do missing.append(node.name) %}
        {% elif flags.FULL_REFRESH %}
        {% elif parents %}
            {% do planned.append(id) %}
            {% do log(
                node.name ~ ' is rebuilt because ' ~ parents[0] ~ (' did not exist' if parents[0] in missing else ' was rebuilt'), info=true
            ) %}
        {% elif node.config.full_refresh is not false and code.get(node.name, '') not in ('', code_of(node)) %}
            {% do exceptions.warn(
                node.name ~ ' has changed since its rows were built, and old rows keep the old rule. `make build SELECT='
                ~ node.name ~ '+ FULL_REFRESH=1` rebuilds them'
            ) %}
        {% endif %}
    {% endfor %}
{% endmacro %}

{#- Returns the ids of the incremental models, parents before their children. -#}
{% macro incremental_models_in_order() %}
    {% set ordered = [] %}
    {% set todo = graph.nodes.values() | selectattr('resource_type', 'equalto', 'model') | selectattr('config.materialized', 'equalto', 'incremental')
        | selectattr('package_name', 'equalto', project_name) | map(attribute='unique_id') | list %}
    {% for _ in range(todo | length) if todo | length > ordered | length %}
        {% for id in todo if id not in ordered %}
            {% set missing = [] %}
            {% for parent in incremental_parents(id) if parent in todo and parent not in ordered %}
                {% do missing.append(parent) %}
            {% endfor %}
            {% do ordered.append(id) if not missing %}
        {% endfor %}
    {% endfor %}
    {{ return(ordered) }}
{% endmacro %}

{#- Returns a hash of what defines a model's rows: its SQL and that of the views that it reads, without comments and spaces,
    the measures if it has any, and the contract of its stream. Other macros are left out: dbt does not expose their text. -#}
{% macro code_of(node) %}
    {% set views = [] %}
    {% set todo = node.depends_on.nodes | list %}
    {% for _ in range(1000) if todo %}
        {% set id = todo.pop() %}
        {% if id.startswith('model.') and graph.nodes[id].config.materialized != 'incremental' and id not in views %}
            {% do views.append(id) %}
            {% do todo.extend(graph.nodes[id].depends_on.nodes) %}
        {% endif %}
    {% endfor %}
    {% set texts = [node.raw_code] %}
    {% for id in views | sort %}
        {% do texts.append(graph.nodes[id].raw_code) %}
    {% endfor %}
    {% set text = modules.re.sub('(?s)\\{#.*?#\\}|--[^\\n]*', '', texts | join(' ')) %}
    {% set measures = measure_definitions() | string if 'measures(' in text else '' %}
    {% set contract = [] %}
    {% for stream in streams() if node.name in ('stg_' ~ stream, 'dim_' ~ stream ~ '_history') %}
        {% do contract.append(tojson(contracts()[stream])) %}
    {% endfor %}
    {{ return(local_md5(text.split() | join(' ') ~ measures ~ contract | join)) }}
{% endmacro %}

{#- dbt calls this macro to compare the columns of a query with those of its table. A new column is added, null in existing
    rows. Any other change stops the build: dbt would cast values to the old type, and a field that is now personal would
    keep its old values. -#}
{% macro check_for_schema_changes(source_relation, target_relation) %}
    {% set changes = adapter.dispatch('check_for_schema_changes', 'dbt')(source_relation, target_relation) %}
    {% set differing = [] %}
    {% for column in changes.target_not_in_source %}
        {% do differing.append(column.name ~ ' is gone') %}
    {% endfor %}
    {% for column in changes.new_target_types %}
        {% do differing.append(column.column_name ~ ' has another type') %}
    {% endfor %}
    {% if differing %}
        {% do exceptions.raise_compiler_error(
            'the columns of ' ~ model.name ~ ' have changed (' ~ differing | join(', ') ~ '): run `make build SELECT=' ~ model.name
            ~ '+ FULL_REFRESH=1`, and then `make build`'
        ) %}
    {% endif %}
    {{ return(changes) }}
{% endmacro %}

{#- Pre-hook: records that a rebuild begins, before its first row is written. So after a build that was killed, the next one
    still rebuilds the models that read this one. Nothing is recorded while no model has read the streams of this one. (Models run
    side by side and write to the watermarks, so a copy of them is read.) -#}
{% macro begin_rebuild() %}
    {% if execute and model.config.materialized == 'incremental' and not is_incremental() %}
        {% set readers = [] %}
        {% for node, read in latest_watermarks().copy().items() if node != 'raw' and streams_of(model.unique_id) | select('in', read) | list %}
            {% do readers.append(node) %}
        {% endfor %}
        {% if readers %}
            {{ record_rebuild('begun') }}
        {% endif %}
    {% endif %}
{% endmacro %}

{#-
  Args:
      step: 'begun' or 'done'
-#}
{% macro record_rebuild(step) %}
    insert into {{ state_table('rebuilds') }} (model, step, code, recorded_at)
    select '{{ model.name }}', '{{ step }}', '{{ code_of(model) }}', {{ change_time() }}
{% endmacro %}

{#- Stops a rebuild of staging when raw no longer has all the messages that the accounting counts: those that are missing
    would disappear from the marts without notice. -#}
{% macro check_raw_is_whole() %}
    {% set accounting = adapter.get_relation(
        target.database, generate_schema_name('analytics', none) | trim, 'landing_reconciliation'
    ) %}
    {% set bounds = watermarks_of('landing_reconciliation') %}
    {% for source in graph.sources.values() if accounting is not none and source.source_name == 'raw' and source.name in bounds %}
        {% set staging = 'model.' ~ project_name ~ '.stg_' ~ source.name %}
        {% if staging in selected_resources and (flags.FULL_REFRESH or staging in graph.planned_rebuilds) %}
            {% set first_whole = removed_before().get(source.name, '0001-01-01') %}
            {% set counts = run_query(
                'select (select count(*) from ' ~ source.relation_name ~ " where landed_at <= timestamp '" ~ bounds[source.name]
                ~ "' and landed_at >= timestamp '" ~ first_whole ~ "') as found, (select coalesce(sum(landed), 0) from " ~ accounting
                ~ " where stream = '" ~ source.name ~ "' and landed_date >= date '" ~ first_whole[:10] ~ "') as accounted"
            ).rows[0] %}
            {% if counts.found < counts.accounted %}
                {% do exceptions.raise_compiler_error(
                    'raw.' ~ source.name ~ ' has ' ~ counts.found ~ ' of the ' ~ counts.accounted | int ~ ' messages that are accounted for: '
                    ~ 'rebuilding stg_' ~ source.name ~ ' now would lose the others from the marts. Restore them; or, to continue without '
                    ~ 'them, drop the table ' ~ accounting.schema ~ '.' ~ accounting.identifier ~ ' first'
                ) %}
            {% endif %}
        {% endif %}
    {% endfor %}
{% endmacro %}
