{# Plain schema names (staging, analytics, ...) instead of dbt's <target schema>_<name>. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ env_var('DATASET_PREFIX', '') }}{{ custom_schema_name or 'analytics' }}
{%- endmacro %}
