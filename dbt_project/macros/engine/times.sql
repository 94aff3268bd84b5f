{#- Times. All are UTC: TIMESTAMP without a zone on DuckDB, TIMESTAMP on BigQuery. -#}

{#- Text in any ISO 8601 form as a time, UTC unless it names a zone; null if it is not a time. -#}
{% macro to_timestamp(text) -%}
    {{ return(adapter.dispatch('to_timestamp')(text)) }}
{%- endmacro %}

{#- Cast to timestamptz first, because a cast to timestamp ignores the offset. -#}
{% macro duckdb__to_timestamp(text) -%}
    timezone('UTC', try_cast({{ text }} as timestamptz))
{%- endmacro %}

{#-
  Accepts the same texts as DuckDB. Only DuckDB's cast reads more than six digits of a second (it drops the rest), times
  without seconds, and surrounding spaces; only GoogleSQL's reads a lower-case t or z, second 60, and an offset such as +1:00.
-#}
{% macro bigquery__to_timestamp(text) -%}
    case when not regexp_contains({{ text }}, r'[0-9][tz]|:60|:[0-9.]+[+-][0-9](?::|$)') then safe_cast(
        regexp_replace(
            regexp_replace(trim({{ text }}, ' '), r'(\.[0-9]{6})[0-9]+', r'\1'),
            r'([T ][0-9]{1,2}:[0-9]{2})($|[^:0-9])', r'\1:00\2'
        ) as timestamp
    ) end
{%- endmacro %}

{#-
  A text with a Unix time in some unit, as a time; null if it is not a whole number, or not in the
  years 1 to 9999.

  Args:
      text: SQL of the text
      units_per_second: 1 for seconds, 1000 for milliseconds, 1000000 for microseconds
-#}
{% macro epoch_to_timestamp(text, units_per_second) -%}
    {%- set least = -62135596800 * units_per_second -%}
    {%- set most = 253402300799 * units_per_second -%}
    {%- set number = to_integer(text) -%}
    case when {{ number }} between {{ least }} and {{ most }}
        then {{ microseconds_to_timestamp(number ~ ' * ' ~ (1000000 // units_per_second)) }} end
{%- endmacro %}

{% macro microseconds_to_timestamp(number) -%}
    {{ return(adapter.dispatch('microseconds_to_timestamp')(number)) }}
{%- endmacro %}

{% macro duckdb__microseconds_to_timestamp(number) -%}
    make_timestamp({{ number }})
{%- endmacro %}

{% macro bigquery__microseconds_to_timestamp(number) -%}
    timestamp_micros({{ number }})
{%- endmacro %}

{#- Microseconds since the epoch. -#}
{% macro epoch_microseconds(time) -%}
    {{ return(adapter.dispatch('epoch_microseconds')(time)) }}
{%- endmacro %}

{% macro duckdb__epoch_microseconds(time) -%}
    epoch_us({{ time }})
{%- endmacro %}

{% macro bigquery__epoch_microseconds(time) -%}
    unix_micros({{ time }})
{%- endmacro %}

{#- Seconds from one time to another, exact to the microsecond; dbt.datediff counts whole seconds. -#}
{% macro seconds_between(first, last) -%}
    cast(
        cast({{ epoch_microseconds(last) }} - {{ epoch_microseconds(first) }} as numeric(18, 0)) * cast(0.000001 as numeric(7, 6))
        as numeric(18, 6)
    )
{%- endmacro %}

{#- The calendar day of a time in the reporting time zone. -#}
{% macro reporting_date(time) -%}
    {%- if var('reporting_time_zone') == 'UTC' -%}
        cast({{ time }} as date)
    {%- else -%}
        cast({{ to_local(time) }} as date)
    {%- endif -%}
{%- endmacro %}

{#- The start of the local hour of a time, as a UTC time. Hours are whole in the reporting time zone, also in a zone that
    differs from UTC by half an hour. -#}
{% macro reporting_hour(time) -%}
    {{ return(adapter.dispatch('reporting_hour')(time)) }}
{%- endmacro %}

{% macro duckdb__reporting_hour(time) -%}
    {%- if var('reporting_time_zone') == 'UTC' -%}
        date_trunc('hour', {{ time }})
    {%- else -%}
        {{ time }} - ({{ to_local(time) }} - date_trunc('hour', {{ to_local(time) }}))
    {%- endif -%}
{%- endmacro %}

{% macro bigquery__reporting_hour(time) -%}
    timestamp_trunc({{ time }}, hour, '{{ var("reporting_time_zone") }}')
{%- endmacro %}

{% macro to_local(time) -%}
    {{ return(adapter.dispatch('to_local')(time)) }}
{%- endmacro %}

{% macro duckdb__to_local(time) -%}
    timezone('{{ var("reporting_time_zone") }}', timezone('UTC', {{ time }}))
{%- endmacro %}

{% macro bigquery__to_local(time) -%}
    datetime({{ time }}, '{{ var("reporting_time_zone") }}')
{%- endmacro %}

{#- The first day of a date's week or month. Weeks begin on Monday; with dbt.date_trunc they begin on Sunday on BigQuery. -#}
{% macro first_day_of(part, date) -%}
    {{ return(adapter.dispatch('first_day_of')(part, date)) }}
{%- endmacro %}

{% macro duckdb__first_day_of(part, date) -%}
    cast(date_trunc('{{ part }}', {{ date }}) as date)
{%- endmacro %}

{% macro bigquery__first_day_of(part, date) -%}
    date_trunc({{ date }}, {{ 'isoweek' if part == 'week' else part }})
{%- endmacro %}

{#- The current time, UTC; dbt.current_timestamp has a zone on DuckDB. -#}
{% macro now_utc() -%}
    {{ return(adapter.dispatch('now_utc')()) }}
{%- endmacro %}

{% macro duckdb__now_utc() -%}
    timezone('UTC', now())
{%- endmacro %}

{% macro bigquery__now_utc() -%}
    current_timestamp()
{%- endmacro %}

{#- A time as the text of a timestamp literal, to the microsecond. -#}
{% macro timestamp_text(time) -%}
    {{ return(adapter.dispatch('timestamp_text')(time)) }}
{%- endmacro %}

{% macro duckdb__timestamp_text(time) -%}
    strftime({{ time }}, '%Y-%m-%d %H:%M:%S.%f')
{%- endmacro %}

{% macro bigquery__timestamp_text(time) -%}
    format_timestamp('%F %H:%M:%E6S', {{ time }})
{%- endmacro %}

{#- The landing time up to which a build may read: nothing lands at or before it any more. On DuckDB one load commits at a
    time, so this is the newest landing time. On BigQuery several loads run side by side, and the slowest may be minutes
    behind. -#}
{% macro upper_bound(newest_landed_at) -%}
    {{ return(adapter.dispatch('upper_bound')(newest_landed_at)) }}
{%- endmacro %}

{% macro duckdb__upper_bound(newest_landed_at) -%}
    {{ newest_landed_at }}
{%- endmacro %}

{% macro bigquery__upper_bound(newest_landed_at) -%}
    least({{ newest_landed_at }}, timestamp_sub(current_timestamp(), interval {{ var('landing_hold_minutes') }} minute))
{%- endmacro %}

{#- Selects every date from the first to the last as date_day. dbt.date_spine queries the warehouse whenever it is compiled. -#}
{% macro date_series(first, last) -%}
    {{ return(adapter.dispatch('date_series')(first, last)) }}
{%- endmacro %}

{% macro duckdb__date_series(first, last) -%}
    select cast(day as date) as date_day from generate_series(date '{{ first }}', date '{{ last }}', interval 1 day) as days (day)
{%- endmacro %}

{#- Year by year, because GoogleSQL limits the length of an array. -#}
{% macro bigquery__date_series(first, last) -%}
    select date_day
    from unnest(generate_date_array(date '{{ first }}', date '{{ last }}', interval 1 year)) as first_of_year
    cross join unnest(generate_date_array(first_of_year, date_sub(date_add(first_of_year, interval 1 year), interval 1 day))) as date_day
    where date_day <= date '{{ last }}'
{%- endmacro %}

{#-
  Text of a given format as a time, UTC unless the format has %z; null if the text does not match. The text is rewritten to
  ISO 8601 by a pattern of digits, because the engines' own functions accept different texts.

  Args:
      text: SQL of the text
      format: format such as %d.%m.%Y %H:%M
-#}
{% macro formatted_to_timestamp(text, format) -%}
    {%- set digits = {
        'Y': '([0-9]{4})', 'm': '([0-9]{2})', 'd': '([0-9]{2})', 'H': '([01][0-9]|2[0-3])', 'M': '([0-5][0-9])',
        'S': '([0-5][0-9])', 'f': '([0-9]{1,6})', 'z': '(?:([+-][0-9]{2}):?([0-9]{2})|Z)'
    } -%}
    {%- set groups, pattern = {}, [] -%}
    {%- for part in modules.re.findall('%.|[^%]', format) -%}
        {%- if part.startswith('%') -%}
            {%- do pattern.append(digits[part[1]]) -%}
            {%- do groups.update({part[1]: groups | length + 1}) -%}
        {%- else -%}
            {%- do pattern.append('[' ~ part ~ ']' if part in '.' else part) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set last = groups | length -%}
    {%- set iso = [] -%}
    {%- for name, before, default in [
        ('Y', '', ''), ('m', '-', '01'), ('d', '-', '01'), ('H', ' ', '00'), ('M', ':', '00'), ('S', ':', '00'), ('f', '.', '0')
    ] -%}
        {#- the pattern of an offset has two groups, so the numbers of later groups are one higher -#}
        {%- set number = groups[name] + 1 if name in groups and 'z' in groups and groups[name] > groups['z'] else groups.get(name) -%}
        {%- do iso.append(before ~ ('\\' ~ number if number else default)) -%}
    {%- endfor -%}
    {%- if 'z' in groups -%}
        {%- do iso.append('\\' ~ groups['z'] ~ ':\\' ~ (groups['z'] + 1)) -%}
    {%- endif -%}
    {%- set rewritten = rewritten_text(text, '^' ~ pattern | join ~ '$', iso | join) -%}
    {%- if 'z' in groups -%}
        {#- for an offset of Z both groups are empty, so the text ends with a colon, which becomes +00:00 -#}
        {%- set rewritten = rewritten_text(rewritten, ':$', '+00:00') -%}
    {%- endif -%}
    case when {{ matches_pattern(text, '^' ~ pattern | join ~ '$') }} then {{ to_timestamp(rewritten) }} end
{%- endmacro %}

{#- A text with the match of a pattern replaced. -#}
{% macro rewritten_text(text, pattern, replacement) -%}
    {{ return(adapter.dispatch('rewritten_text')(text, pattern, replacement)) }}
{%- endmacro %}

{% macro duckdb__rewritten_text(text, pattern, replacement) -%}
    regexp_replace({{ text }}, '{{ pattern }}', '{{ replacement }}')
{%- endmacro %}

{% macro bigquery__rewritten_text(text, pattern, replacement) -%}
    regexp_replace({{ text }}, r'{{ pattern }}', r'{{ replacement }}')
{%- endmacro %}

{% macro matches_pattern(text, pattern) -%}
    {{ return(adapter.dispatch('matches_pattern')(text, pattern)) }}
{%- endmacro %}

{% macro duckdb__matches_pattern(text, pattern) -%}
    regexp_matches({{ text }}, '{{ pattern }}')
{%- endmacro %}

{% macro bigquery__matches_pattern(text, pattern) -%}
    regexp_contains({{ text }}, r'{{ pattern }}')
{%- endmacro %}

{#- A time as ISO 8601 to the microsecond, such as 2026-01-05T10:00:00.000000Z. -#}
{% macro iso_text(time) -%}
    {{ return(adapter.dispatch('iso_text')(time)) }}
{%- endmacro %}

{% macro duckdb__iso_text(time) -%}
    strftime({{ time }}, '%Y-%m-%dT%H:%M:%S.%fZ')
{%- endmacro %}

{% macro bigquery__iso_text(time) -%}
    format_timestamp('%FT%H:%M:%E6SZ', {{ time }})
{%- endmacro %}
