-- The latest version of each, deleted ones (deleted_at) included; what a tombstone removed is gone.
select user_id, user_name, first_name, last_name, country_code, favorite_color, created_at, updated_at, deleted_at
from {{ ref('dim_users_history') }}
where is_current and not is_tombstone
