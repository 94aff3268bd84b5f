-- Every version that a snapshot saw, its deletion rows apart, is a version of the history.
select 'users_snapshot' as snapshot, snapshots.user_id as id, snapshots.updated_at
from {{ ref('users_snapshot') }} as snapshots
left join {{ ref('dim_users_history') }} as history
    on snapshots.user_id = history.user_id
    and snapshots.updated_at = history.updated_at and not history.is_tombstone
where snapshots.dbt_is_deleted = 'False' and history.user_id is null

union all

select 'dim_users_snapshot' as snapshot, snapshots.user_id as id, snapshots.updated_at
from {{ ref('dim_users_snapshot') }} as snapshots
left join {{ ref('dim_users_history') }} as history
    on snapshots.user_id = history.user_id
    and snapshots.updated_at = history.updated_at and not history.is_tombstone
where snapshots.dbt_is_deleted = 'False' and history.user_id is null

union all

select 'products_snapshot' as snapshot, snapshots.product_id as id, snapshots.updated_at
from {{ ref('products_snapshot') }} as snapshots
left join {{ ref('dim_products_history') }} as history
    on snapshots.product_id = history.product_id
    and snapshots.updated_at = history.updated_at and not history.is_tombstone
where snapshots.dbt_is_deleted = 'False' and history.product_id is null

union all

select 'dim_products_snapshot' as snapshot, snapshots.product_id as id, snapshots.updated_at
from {{ ref('dim_products_snapshot') }} as snapshots
left join {{ ref('dim_products_history') }} as history
    on snapshots.product_id = history.product_id
    and snapshots.updated_at = history.updated_at and not history.is_tombstone
where snapshots.dbt_is_deleted = 'False' and history.product_id is null

union all

select 'posts_snapshot' as snapshot, snapshots.post_id as id, snapshots.updated_at
from {{ ref('posts_snapshot') }} as snapshots
left join {{ ref('dim_posts_history') }} as history
    on snapshots.post_id = history.post_id
    and snapshots.updated_at = history.updated_at and not history.is_tombstone
where snapshots.dbt_is_deleted = 'False' and history.post_id is null

union all

select 'dim_posts_snapshot' as snapshot, snapshots.post_id as id, snapshots.updated_at
from {{ ref('dim_posts_snapshot') }} as snapshots
left join {{ ref('dim_posts_history') }} as history
    on snapshots.post_id = history.post_id
    and snapshots.updated_at = history.updated_at and not history.is_tombstone
where snapshots.dbt_is_deleted = 'False' and history.post_id is null
