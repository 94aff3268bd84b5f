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
  the period, `events_outside_whole_hours` the events of the other hours, at the two ends of the period. Each event of the
  period is in one of the two. All events of an hour are less than 60 minutes after its start, in any time zone.

  Args:
      start_time, end_time: parameters of the query; the end is exclusive
-#}
{% macro whole_hours(start_time, end_time) -%}
    reporting_date between {{ reporting_date(start_time) }} and {{ reporting_date(end_time) }}
    and reporting_hour_at >= {{ start_time }} and reporting_hour_at <= {{ end_time }} - interval 1 hour
{%- endmacro %}

{#-
  A relation with the columns of int_events_reported. The two ends are selected apart, because a scan skips what is outside of
  one range, but reads what is between two.

  Args:
      start_time, end_time: parameters of the query; the end is exclusive
      has_mart: condition on the parameters under which the query reads whole hours from a mart; otherwise all events of the
          period are returned
-#}
{% macro events_outside_whole_hours(start_time, end_time, has_mart) -%}
    {%- set hour = 'interval 1 hour' -%}
    (
        select * from {{ ref('int_events_reported') }}
        where {{ in_period(start_time, end_time) }} and not {{ has_mart }}

        union all

        select * from {{ ref('int_events_reported') }}
        where {{ in_period(start_time, start_time ~ ' + ' ~ hour) }} and event_at < {{ end_time }}
            and reporting_hour_at < {{ start_time }} and {{ has_mart }}

        union all

        select * from {{ ref('int_events_reported') }}
        where {{ in_period(end_time ~ ' - ' ~ hour, end_time) }}
            and reporting_hour_at >= {{ start_time }} and reporting_hour_at > {{ end_time }} - {{ hour }} and {{ has_mart }}
    ) as events
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
