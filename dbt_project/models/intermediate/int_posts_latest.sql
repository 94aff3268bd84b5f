-- The latest version of each, deleted ones (deleted_at) included; what a tombstone removed is gone.
select post_id, user_id, post_text, created_at, updated_at, deleted_at
from {{ ref('dim_posts_history') }}
where is_current and not is_tombstone
