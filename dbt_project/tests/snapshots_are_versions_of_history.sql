-- The current rows of each snapshot, except deletions, are versions of the history. Older rows, and rows newer than the
-- history, are not compared: a full refresh with other rules may have rejected these versions, and a snapshot keeps
-- what earlier builds saw.
{%- set histories = {} %}
{%- for stream in entity_streams() -%}{%- do histories.update({stream: entity_columns(stream)[0]}) -%}{%- endfor %}

{% if not histories -%}
select 1 as snapshot
from (select 1 as one) as nothing
where false
{%- else -%}
with newest as (
    {% for entity, id in histories.items() -%}
    select '{{ entity }}' as entity, {{ id }} as id, max(updated_at) as updated_at
    from {{ ref('dim_' ~ entity ~ '_history') }}
    where not is_tombstone
    group by {{ id }}
    {% if not loop.last %}union all{% endif %}
    {% endfor %}
)

{% for entity, id in histories.items() -%}
{% for snapshot in [entity ~ '_snapshot', 'dim_' ~ entity ~ '_snapshot'] -%}
select '{{ snapshot }}' as snapshot, snapshots.{{ id }} as id, snapshots.updated_at
from {{ ref(snapshot) }} as snapshots
left join {{ ref('dim_' ~ entity ~ '_history') }} as history
    on snapshots.{{ id }} = history.{{ id }}
    and snapshots.updated_at = history.updated_at and not history.is_tombstone
left join newest
    on newest.entity = '{{ entity }}' and snapshots.{{ id }} = newest.id
where snapshots.dbt_valid_to = timestamp '9999-12-31'
    and snapshots.dbt_is_deleted = 'False' and history.{{ id }} is null
    and (newest.id is null or snapshots.updated_at <= newest.updated_at)
{% if not loop.last %}union all{% endif %}
{% endfor %}
{% if not loop.last %}union all{% endif %}
{% endfor %}
{%- endif %}
