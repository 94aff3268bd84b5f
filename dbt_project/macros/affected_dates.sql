{#-
  The dates that new rows affect, as lists of literals: BigQuery skips partitions only by comparison with literals. An
  incremental model recomputes exactly these dates. In a full refresh the lists are empty, and the models do not use them.
-#}

{#-
  Returns a sorted list of dates as ISO text; empty in a full refresh.

  Args:
      query: SQL with the columns first_date and last_date; each row stands for every date from the first to the last
-#}
{% macro affected_dates(query) %}
    {% set dates = {} %}
    {% if execute and is_incremental() %}
        {% for row in run_query(query).rows if row.first_date is not none %}
            {% for day in range((row.last_date - row.first_date).days + 1) %}
                {% do dates.update({(row.first_date + modules.datetime.timedelta(days=day)).isoformat(): true}) %}
            {% endfor %}
        {% endfor %}
    {% endif %}
    {{ return(dates.keys() | sort) }}
{% endmacro %}

{#-
  Returns the UTC dates of the events that this model has not read yet.

  Args:
      events: relation with stream, landed_at and event_at
      before, after: seconds by which the range of dates of each event is extended
      where: SQL condition on the events
-#}
{% macro new_event_dates(events, before=0, after=0, where='true') %}
    {% set new_dates %}
        select distinct
            cast(event_at - interval {{ before }} second as date) as first_date,
            cast(event_at + interval {{ after }} second as date) as last_date
        from {{ events }}
        where {{ where }} and event_at is not null and {{ is_new() }}
    {% endset %}
    {{ return(affected_dates(new_dates)) }}
{% endmacro %}

{#- Returns the reporting dates of the events that this model has not read yet. The rollups ask the same, so the answer is
    kept in `graph` for the run. -#}
{% macro new_reporting_dates(events) %}
    {% set new_dates %}
        select distinct {{ reporting_date('event_at') }} as first_date, {{ reporting_date('event_at') }} as last_date
        from {{ events }}
        where event_at is not null and {{ is_new() }}
    {% endset %}
    {% if not execute or not is_incremental() %}
        {{ return([]) }}
    {% endif %}
    {#- a process may run dbt many times, on other warehouses -#}
    {% if graph.get('run_of_reporting_dates') != invocation_id %}
        {% do graph.update({'new_reporting_dates': {}, 'run_of_reporting_dates': invocation_id}) %}
    {% endif %}
    {% set known = graph.setdefault('new_reporting_dates', {}) %}
    {% if new_dates not in known %}
        {% do known.update({new_dates: affected_dates(new_dates)}) %}
    {% endif %}
    {{ return(known[new_dates]) }}
{% endmacro %}

{#-
  `from {{ events_of_affected_days() }}`: all events of every reporting date that has a new event, so that a daily or
  hourly mart counts these days again from the facts; all events in a full refresh. Has the columns of
  int_events_reported.
-#}
{% macro events_of_affected_days() -%}
    {%- set dates = new_reporting_dates(ref('int_accepted_events')) -%}
    (
        select * from {{ ref('int_events_reported') }}
        where {{ is_in_build() }} {%- if is_incremental() %} and {{ in_reporting_dates(dates) }} {%- endif %}
    ) as events
{%- endmacro %}

{#-
  Returns these dates, and the earlier dates within a window before them.

  Args:
      dates: ISO texts
      before: length of the window in seconds
-#}
{% macro widened_dates(dates, before) %}
    {% set widened = {} %}
    {% for date in dates %}
        {% for days in range((before + 86399) // 86400 + 1) %}
            {% do widened.update({shifted_date(date, -days): true}) %}
        {% endfor %}
    {% endfor %}
    {{ return(widened.keys() | sort) }}
{% endmacro %}

{#- Returns the date this many days later, as ISO text. -#}
{% macro shifted_date(date, days) %}
    {{ return((modules.datetime.date.fromisoformat(date) + modules.datetime.timedelta(days=days)).isoformat()) }}
{% endmacro %}

{#- `where {{ in_dates('event_date', dates) }}`: the rows of these dates; false without dates. -#}
{% macro in_dates(column, dates) -%}
    {%- if dates -%}
        {{ column }} in (
            {%- for date in dates -%} date '{{ date }}'{{ ', ' if not loop.last }} {%- endfor -%}
        )
    {%- else -%}
        false
    {%- endif -%}
{%- endmacro %}

{#- `where {{ in_reporting_dates(dates) }}`: the events of these reporting dates. The partitions are of UTC dates, and a
    reporting date is at most one day off: so the dates on either side are read, and filtered. -#}
{% macro in_reporting_dates(dates) -%}
    {%- if var('reporting_time_zone') == 'UTC' -%}
        {{ in_dates('event_date', dates) }}
    {%- else -%}
        {%- set utc_dates = {} -%}
        {%- for date in dates -%}
            {%- for days in (-1, 0, 1) -%}
                {%- do utc_dates.update({shifted_date(date, days): true}) -%}
            {%- endfor -%}
        {%- endfor -%}
        {{ in_dates('event_date', utc_dates.keys() | sort) }} and {{ in_dates(reporting_date('event_at'), dates) }}
    {%- endif -%}
{%- endmacro %}

{#- `where {{ landed_in('landed_at', dates) }}`: the rows that landed on these dates, as ranges of the partition column. -#}
{% macro landed_in(column, dates) -%}
    {%- set ranges = [] -%}
    {%- for date in dates -%}
        {%- do ranges.append(
            '(' ~ column ~ " >= timestamp '" ~ date ~ "' and " ~ column ~ " < timestamp '" ~ shifted_date(date, 1) ~ "')"
        ) -%}
    {%- endfor -%}
    ({{ ranges | join(' or ') if ranges else 'false' }})
{%- endmacro %}

{#- The number of the stretch of time, twice this many seconds long, that a time is in. -#}
{% macro stretch(time, seconds) -%}
    floor({{ epoch_microseconds(time) }} / {{ 2000000 * ([seconds | int, 1] | max) }})
{%- endmacro %}
