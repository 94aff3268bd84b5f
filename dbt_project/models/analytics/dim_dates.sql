{{ config(materialized='table') }}

with days as (
    {{ date_series('2000-01-01', '2049-12-31') }}
)

select
    date_day,
    cast(extract(year from date_day) as bigint) as year_number,
    cast(extract(quarter from date_day) as bigint) as quarter_number,
    cast(extract(month from date_day) as bigint) as month_number,
    cast(extract(day from date_day) as bigint) as day_of_month,
    -- 2000-01-03 was a Monday
    mod({{ dbt.datediff("date '2000-01-03'", 'date_day', 'day') }} + 7, 7) + 1 as iso_weekday,
    mod({{ dbt.datediff("date '2000-01-03'", 'date_day', 'day') }} + 7, 7) >= 5 as is_weekend
from days
