-- Events by hour, of one brand, category and product or of all. The hourly marts have neither brand nor category: the
-- facts are read for these, and for hours of which only a part is in the period.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}
{%- set is_of_all = "(lower(" ~ brand ~ ") = 'all' and lower(" ~ category ~ ") = 'all')" %}
{%- set figures = ['events', 'views', 'carts', 'purchases'] %}

with hours as (
    select
        reporting_hour_at,
        {{ figures | join(', ') }}
    from {{ ref('agg_events_hourly') }}
    where {{ is_of_all }} and lower({{ product_id }}) = 'all'
        and {{ whole_hours(start_time, end_time) }}

    union all

    select
        reporting_hour_at,
        {{ figures | join(', ') }}
    from {{ ref('agg_product_events_hourly') }}
    where {{ is_of_all }} and lower({{ product_id }}) != 'all'
        and {{ whole_hours(start_time, end_time) }}
        and product_id = {{ product_id }}

    union all

    select
        reporting_hour_at,
        {{ measures(figures) }}
    from {{ events_outside_whole_hours(start_time, end_time, is_of_all) }}
    where {{ of_products(brand, category, product_id) }}
    group by reporting_hour_at
)

select * from hours
order by reporting_hour_at desc
