-- Posts that are not deleted, by their views and likes in the period.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}
{%- set limit = param('limit', 10, 'integer') %}

with metrics as (
    select post_id, cast(sum(views) as bigint) as views, cast(sum(likes) as bigint) as likes
    from {{ ref('agg_post_metrics_daily') }}
    where reporting_date between {{ start_date }} and {{ end_date }}
    group by post_id
)

select
    metrics.post_id,
    posts.user_id,
    users.user_name,
    posts.post_text,
    metrics.views,
    metrics.likes,
    {{ ratio('metrics.likes', 'metrics.views') }} as like_ratio
from metrics
left join {{ ref('dim_posts_history') }} as posts on metrics.post_id = posts.post_id and posts.is_current
left join {{ ref('dim_users_history') }} as users on posts.user_id = users.user_id and users.is_current
where not coalesce(posts.is_deleted, false)
order by metrics.views desc, metrics.likes desc, metrics.post_id
limit {{ limit }}
