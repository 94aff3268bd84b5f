{#- Returns the values of the vars that affect the rows of a model as JSON text: those in `meta: settings` of the model and of
    everything that it is made from. -#}
{% macro settings_of(unique_id) %}
    {% set names = [] %}
    {% set seen = [] %}
    {% set todo = [unique_id] %}
    {% for _ in range(1000) if todo %}
        {% set id = todo.pop() %}
        {% if id in graph.nodes and id not in seen %}
            {% do seen.append(id) %}
            {% for name in graph.nodes[id].config.get('meta', {}).get('settings', []) if name not in names %}
                {% do names.append(name) %}
            {% endfor %}
            {% do todo.extend(graph.nodes[id].depends_on.nodes) %}
        {% endif %}
    {% endfor %}
    {% set values = {} %}
    {% for name in names | sort %}
        {% do values.update({name: var(name) | string}) %}
    {% endfor %}
    {{ return(tojson(values, sort_keys=true) | replace("'", '')) }}
{% endmacro %}

{#- Stops a build with other values of these vars than the last one: one table would mix two definitions. -#}
{% macro check_settings() %}
    {% set latest %}
        select node, settings
        from {{ state_table('watermarks') }}
        where node != 'raw'
        qualify row_number() over (partition by node order by recorded_at desc) = 1
    {% endset %}
    {% set known = {} %}
    {% for row in run_query(latest).rows %}
        {% do known.update({row.node: row.settings}) %}
    {% endfor %}
    {% for id, node in graph.nodes.items()
        if node.resource_type == 'model' and node.name in known and id not in graph.planned_rebuilds
        and not (flags.FULL_REFRESH and id in selected_resources) %}
        {% set before, now = fromjson(known[node.name]), fromjson(settings_of(id)) %}
        {% for name in (before.keys() | list + now.keys() | list) | unique | sort if before.get(name) != now.get(name) %}
            {% do exceptions.raise_compiler_error(
                node.name ~ ' was built with ' ~ name ~ '=' ~ before.get(name) ~ ', this build has ' ~ now.get(name)
                ~ ': run `make build FULL_REFRESH=1` to rebuild every mart with the new value, or go back to the old one'
            ) %}
        {% endfor %}
    {% endfor %}
{% endmacro %}
