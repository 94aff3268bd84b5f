-- One row a post and reporting date with a view or a like.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'post_id'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'},
    cluster_by='post_id'
) }}
{%- set dates = new_reporting_dates(ref('int_accepted_events')) %}

with events as (
    select * from {{ ref('int_events_reported') }}
    where {{ is_in_build() }} and post_id is not null
    {% if is_incremental() %}
        and {{ in_reporting_dates(dates) }}
    {% endif %}
)

select
    reporting_date,
    post_id,
    count(distinct case when event_type = 'post_view' then user_id end) as views,
    count(case when event_type = 'post_like' then 1 end) as likes,
    {{ ratio(
        "count(case when event_type = 'post_like' then 1 end)",
        "count(distinct case when event_type = 'post_view' then user_id end)"
    ) }} as like_ratio
from events
group by reporting_date, post_id
