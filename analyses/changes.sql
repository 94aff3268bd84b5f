-- What changed in users, products and posts: one row per version and field whose value differs from the version before.
-- A deletion is a change of is_deleted. A tombstone has no other values to compare.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set entity = param('entity', 'all', ['all', 'user', 'product', 'post']) %}
{%- set id = param('id', 'all', 'string') %}
{%- set field = param('field', 'all', 'string') %}
{%- set limit = param('limit', 100, 'integer') %}
{%- set entities = {
    'user': ['user_name', 'first_name', 'last_name', 'country_code', 'favorite_color'],
    'product': ['name', 'category_code', 'category', 'model', 'brand', 'price'],
    'post': ['user_id', 'post_text'],
} %}

with changes as (
    {% for name, columns in entities.items() %}
    {%- set versions = 'partition by ' ~ name ~ '_id order by version_number' %}
    {% for column in columns %}
    {%- set text = amount_text(column) if column == 'price' else column %}
    select
        '{{ name }}' as entity,
        {{ name }}_id as id,
        updated_at as changed_at,
        version_number,
        '{{ column }}' as field,
        {{ text }} as new_value,
        lag({{ text }}) over ({{ versions }}) as old_value,
        row_number() over ({{ versions }}) as place
    from {{ ref('dim_' ~ name ~ 's_history') }}
    where not is_tombstone
    union all
    {% endfor %}
    select
        '{{ name }}' as entity,
        {{ name }}_id as id,
        updated_at as changed_at,
        version_number,
        'is_deleted' as field,
        case when is_deleted then 'true' else 'false' end as new_value,
        lag(case when is_deleted then 'true' else 'false' end) over ({{ versions }}) as old_value,
        row_number() over ({{ versions }}) as place
    from {{ ref('dim_' ~ name ~ 's_history') }}
    {% if not loop.last %}union all{% endif %}
    {% endfor %}
)

select
    changed_at,
    entity,
    id,
    field,
    old_value,
    new_value
from changes
where place > 1
    and new_value is distinct from old_value
    and changed_at >= {{ start_time }} and changed_at < {{ end_time }}
    and {{ entity }} in ('all', entity)
    and (lower({{ id }}) = 'all' or id = {{ id }})
    and (lower({{ field }}) = 'all' or field = lower({{ field }}))
order by changed_at desc, entity, id, version_number desc, field
limit {{ limit }}
