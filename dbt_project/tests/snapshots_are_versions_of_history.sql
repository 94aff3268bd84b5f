-- What a snapshot says is so now, deletions apart, is a version of the history. What it said before is not compared, nor
-- what is newer than the history: a full refresh with other rules may have rejected those versions since, and a snapshot
-- keeps what builds saw.
{%- set snapshots = {
    'users_snapshot': ('user_id', 'dim_users_history'), 'dim_users_snapshot': ('user_id', 'dim_users_history'),
    'products_snapshot': ('product_id', 'dim_products_history'),
    'dim_products_snapshot': ('product_id', 'dim_products_history'),
    'posts_snapshot': ('post_id', 'dim_posts_history'), 'dim_posts_snapshot': ('post_id', 'dim_posts_history')
} %}

{% for snapshot, (id, history) in snapshots.items() -%}
select '{{ snapshot }}' as snapshot, snapshots.{{ id }} as id, snapshots.updated_at
from {{ ref(snapshot) }} as snapshots
left join {{ ref(history) }} as history
    on snapshots.{{ id }} = history.{{ id }}
    and snapshots.updated_at = history.updated_at and not history.is_tombstone
left join (
    select {{ id }}, max(updated_at) as updated_at
    from {{ ref(history) }}
    where not is_tombstone
    group by {{ id }}
) as newest on snapshots.{{ id }} = newest.{{ id }}
where snapshots.dbt_valid_to = timestamp '9999-12-31'
    and snapshots.dbt_is_deleted = 'False' and history.{{ id }} is null
    and (newest.{{ id }} is null or snapshots.updated_at <= newest.updated_at)
{% if not loop.last %}union all{% endif %}
{% endfor %}
