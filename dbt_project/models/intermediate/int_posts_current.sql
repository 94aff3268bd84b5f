-- Those that are not deleted, as they are now: the columns of dim_posts without its totals.
select post_id, user_id, post_text, created_at, updated_at
from {{ ref('int_posts_latest') }}
where deleted_at is null
