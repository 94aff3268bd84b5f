{#-
  The best-selling brands or categories: the whole of analyses/brands.sql and analyses/categories.sql. Names that differ only
  in case are one.

  Args:
      column: column of fct_events to group by
      name: its name in the answer
      start_time, end_time, sort, limit: parameters of the query
      products: condition on the events
-#}
{% macro best_sellers(column, name, start_time, end_time, products, sort, limit) -%}
with sold as (
    select
        lower({{ column }}) as {{ name }},
        {{ measures(['products', 'views', 'carts', 'purchases', 'users', 'revenue']) }}
    from {{ ref('fct_events') }}
    where {{ in_period(start_time, end_time) }}
        and {{ column }} is not null
        and {{ products }}
    group by lower({{ column }})
)

select * from sold
order by
    {{ column_named(sort, ['revenue', 'purchases', 'carts', 'views', 'users', 'products']) }} desc,
    revenue desc, purchases desc, views desc, {{ name }}
limit {{ limit }}
{%- endmacro %}
