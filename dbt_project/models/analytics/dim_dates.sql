-- One row per date from 2000 to 2049.
{{ config(materialized='table') }}

with days as (
    {{ date_series('2000-01-01', '2049-12-31') }}
),

-- 1999-12-27 was a Monday
weekdays as (
    select
        date_day,
        mod({{ dbt.datediff("date '1999-12-27'", 'date_day', 'day') }}, 7) as days_after_a_monday
    from days
)

select
    date_day,
    cast(extract(year from date_day) as bigint) as year_number,
    cast(extract(quarter from date_day) as bigint) as quarter_number,
    cast(extract(month from date_day) as bigint) as month_number,
    cast(extract(day from date_day) as bigint) as day_of_month,
    days_after_a_monday + 1 as iso_weekday,
    days_after_a_monday >= 5 as is_weekend
from weekdays
