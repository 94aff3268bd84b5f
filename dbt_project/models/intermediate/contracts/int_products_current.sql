-- The latest version of each entity that is not deleted.
-- Written by `python -m dbt_project.contracts` from streams/*.yml: change those.
{{ entity_current('products') }}
