-- One row per community post and reporting date with a view or a like. Views are distinct viewers.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'post_id'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'},
    cluster_by='post_id'
) }}

select
    reporting_date,
    post_id,
    count(distinct case when event_type = 'post_view' then user_id end) as views,
    count(case when event_type = 'post_like' then 1 end) as likes,
    {{ ratio(
        "count(case when event_type = 'post_like' then 1 end)",
        "count(distinct case when event_type = 'post_view' then user_id end)"
    ) }} as like_ratio
from {{ events_of_affected_days() }}
where post_id is not null
group by reporting_date, post_id
