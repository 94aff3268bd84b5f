{#- Conditions that many queries of analyses/ share. -#}

{#-
  Events of a period. The condition on event_date follows from the one on the time: BigQuery needs it to skip partitions.

  Args:
      start_time, end_time: parameters of the query; the end is exclusive
      time: column of the time, whose UTC date is event_date
-#}
{% macro in_period(start_time, end_time, time='event_at') -%}
    event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
    and {{ time }} >= {{ start_time }} and {{ time }} < {{ end_time }}
{%- endmacro %}

{#-
  A period is read from an hourly mart and from the facts: `whole_hours` are the rows of the mart whose hour is completely in
  the period, `partial_hours` the events of the hours at its two ends, at most two hours of facts. Each event of the period is
  in one of the two. All events of an hour are less than 60 minutes after its start, in any time zone.

  Args:
      start_time, end_time: parameters of the query; the end is exclusive
-#}
{% macro whole_hours(start_time, end_time) -%}
    reporting_date between {{ reporting_date(start_time) }} and {{ reporting_date(end_time) }}
    and reporting_hour_at >= {{ start_time }} and reporting_hour_at <= {{ end_time }} - interval 1 hour
{%- endmacro %}

{#- The conditions on event_date and event_at follow from that on the hour. With them, a scan skips what is between. -#}
{% macro partial_hours(start_time, end_time) -%}
    (
        event_date <= cast({{ start_time }} + interval 1 hour as date)
        or event_date >= cast({{ end_time }} - interval 1 hour as date)
    )
    and (event_at < {{ start_time }} + interval 1 hour or event_at >= {{ end_time }} - interval 1 hour)
    and (reporting_hour_at < {{ start_time }} or reporting_hour_at > {{ end_time }} - interval 1 hour)
{%- endmacro %}

{#-
  Events of one brand, category and product, or of all. Upper and lower case do not matter for brands and categories.

  Args:
      brand, category, product_id: parameters of the query, where 'all' means no condition; none if the query does not have the
          parameter
-#}
{% macro of_products(brand=none, category=none, product_id=none) -%}
    {%- set conditions = [] -%}
    {%- for parameter, column, wanted in [
        (brand, 'lower(brand)', 'lower(' ~ brand ~ ')'),
        (category, 'lower(category_code)', 'lower(' ~ category ~ ')'),
        (product_id, 'product_id', product_id)
    ] if parameter is not none -%}
        {%- do conditions.append('(lower(' ~ parameter ~ ") = 'all' or " ~ column ~ ' = ' ~ wanted ~ ')') -%}
    {%- endfor -%}
    {{ conditions | join(' and ') }}
{%- endmacro %}

{#-
  `order by {{ column_named(sort, ['revenue', 'views']) }} desc`: the column that the parameter names.

  Args:
      parameter: parameter of the query
      columns: names that it may have; the columns must have comparable types
-#}
{% macro column_named(parameter, columns) -%}
    case {{ parameter }} {%- for column in columns %} when '{{ column.split('.')[-1] }}' then {{ column }} {%- endfor %} end
{%- endmacro %}
