-- The latest version of each, deleted ones (deleted_at) included.
-- Written by `python -m dbt_project.contracts` from streams/*.yml: change those.
{{ entity_latest('users') }}
