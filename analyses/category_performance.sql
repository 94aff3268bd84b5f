-- Each category by day. Codes that differ only in case are one category.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}
{%- set category = param('category', 'all', 'string') %}
{%- set limit = param('limit', 1000, 'integer') %}

select
    reporting_date,
    category_code as category,
    views,
    carts,
    purchases,
    users,
    revenue,
    purchases_per_view
from {{ ref('agg_category_performance_daily') }}
where reporting_date between {{ start_date }} and {{ end_date }}
    and {{ of_products(category=category) }}
order by reporting_date desc, revenue desc, category
limit {{ limit }}
