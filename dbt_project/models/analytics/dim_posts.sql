-- The latest version of each post that is not deleted, with totals over its daily metrics.
{{ config(materialized='view') }}

with totals as (
    select post_id, sum(views) as views, sum(likes) as likes
    from {{ ref('agg_post_metrics_daily') }}
    group by post_id
)

select
    posts.post_id,
    posts.user_id,
    posts.post_text,
    posts.created_at,
    posts.updated_at,
    cast(coalesce(totals.views, 0) as bigint) as daily_views,
    cast(coalesce(totals.likes, 0) as bigint) as likes,
    {{ ratio('totals.likes', 'totals.views') }} as like_ratio
from {{ ref('int_posts_current') }} as posts
left join totals on posts.post_id = totals.post_id
