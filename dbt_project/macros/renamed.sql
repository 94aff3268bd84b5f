{#- The former names of macros of touched.sql, for one release: models that people have written go on with them. -#}
{% macro dates_from(query) %}{{ return(affected_dates(query)) }}{% endmacro %}

{% macro dates_of_new_events(events, before=0, after=0, only='true') %}
    {{ return(new_event_dates(events, before, after, only)) }}
{% endmacro %}

{% macro reporting_dates_of_new_events(events) %}{{ return(new_reporting_dates(events)) }}{% endmacro %}

{% macro on_dates(column, dates) %}{{ return(in_dates(column, dates)) }}{% endmacro %}

{% macro on_reporting_dates(dates, time='event_at') %}{{ return(in_reporting_dates(dates, time)) }}{% endmacro %}

{% macro landed_on(column, dates) %}{{ return(landed_in(column, dates)) }}{% endmacro %}
