{#- Plain schema names (staging, analytics, ...) instead of dbt's <target schema>_<name>. A target of one's own keeps out of
    the way of others: schema `dev_analytics` gives dev_staging and so on, `dev_ann` gives dev_ann_staging. Only `raw`,
    which models read and do not build, is where landing has it. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set name = custom_schema_name or 'analytics' -%}
    {%- if target.schema.endswith('analytics') -%}
        {{ target.schema[:-9] }}{{ name }}
    {%- else -%}
        {{ target.schema }}_{{ name }}
    {%- endif -%}
{%- endmacro %}
