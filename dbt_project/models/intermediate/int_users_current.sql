-- Those that are not deleted, as they are now: the columns of dim_users without its totals.
select user_id, user_name, first_name, last_name, country_code, favorite_color, created_at, updated_at
from {{ ref('int_users_latest') }}
where deleted_at is null
