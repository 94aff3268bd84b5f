-- For every stream and landing date: landed = accepted + duplicates + rejected.
select *
from {{ changed_rows(ref('landing_reconciliation')) }}
where not is_balanced
