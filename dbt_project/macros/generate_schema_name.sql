{#- dbt calls this macro to name schemas. The default target has plain names: staging, analytics and so on. Any other target
    gets a prefix: the schema `dev_analytics` gives dev_staging, and `dev_ann` gives dev_ann_staging. The schema raw is not
    named here: landing writes it, and all targets read the same one. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set name = custom_schema_name or 'analytics' -%}
    {%- if target.schema.endswith('analytics') -%}
        {{ target.schema[:-9] }}{{ name }}
    {%- else -%}
        {{ target.schema }}_{{ name }}
    {%- endif -%}
{%- endmacro %}
