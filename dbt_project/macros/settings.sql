{#- The values of the vars that change the rows of a model or of its ancestors (`meta: settings`), as JSON text. -#}
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

{#- Stops a build that would mix two definitions in one table. -#}
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
        if node.resource_type == 'model' and node.name in known
        and not (flags.FULL_REFRESH and id in selected_resources)
        and known[node.name] != settings_of(id) %}
        {% do exceptions.raise_compiler_error(
            node.name ~ ' was built with the settings ' ~ known[node.name] ~ ', this build has '
            ~ settings_of(id) ~ ': run `make build FULL_REFRESH=1` to rebuild with the new ones'
        ) %}
    {% endfor %}
{% endmacro %}
