-- The latest version of each, deleted ones (deleted_at) included; what a tombstone removed is gone.
select product_id, name, category_code, category, model, brand, price, created_at, updated_at, deleted_at
from {{ ref('dim_products_history') }}
where is_current and not is_tombstone
