-- Those that are not deleted, as they are now: the columns of dim_products without its totals.
select product_id, name, category_code, category, model, brand, price, created_at, updated_at
from {{ ref('int_products_latest') }}
where deleted_at is null
