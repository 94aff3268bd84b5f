{#- What marts and queries count and sum, each defined once. A definition reads the columns of fct_events. -#}
{% macro measure_definitions() %}
    {{ return({
        'events': 'count(*)',
        'views': "count(case when event_type = 'view' then 1 end)",
        'carts': "count(case when event_type = 'cart' then 1 end)",
        'purchases': "count(case when event_type = 'purchase' then 1 end)",
        'page_views': "count(case when event_type = 'page_view' then 1 end)",
        'clicks': "count(case when event_type = 'click' then 1 end)",
        'checkouts': "count(case when event_type = 'checkout' then 1 end)",
        'users': 'count(distinct user_id)',
        'products': 'count(distinct product_id)',
        'revenue': sum_of_amounts("case when event_type = 'purchase' then price end"),
        'checkout_amount': sum_of_amounts('total_amount'),
        'purchases_per_view': ratio(
            "count(case when event_type = 'purchase' then 1 end)", "count(case when event_type = 'view' then 1 end)"
        )
    }) }}
{% endmacro %}

{#-
  Columns of a select: `{{ measures(['events', 'users']) }}` is `count(*) as events, count(distinct user_id) as users`.

  Args:
      names: the measures; each becomes a column of that name, in this order
-#}
{% macro measures(names) -%}
    {%- set definitions = measure_definitions() -%}
    {%- for name in names %}
    {{ definitions[name] }} as {{ name }}{{ ',' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
