{#-
  SCD2: the versions of an id follow each other without overlap or gap, and the last is valid until 9999-12-31.

  Args:
      id: column of the id
-#}
{% test continuous_history(model, id) %}

with versions as (
    select
        {{ id }},
        valid_from,
        valid_to,
        lead(valid_from) over (partition by {{ id }} order by version_number) as next_valid_from
    from {{ model }}
)

select *
from versions
where valid_from > valid_to or valid_to != coalesce(next_valid_from, timestamp '9999-12-31')

{% endtest %}
