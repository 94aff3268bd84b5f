{#-
  The grain of a model: no two rows have the same values in these columns, and no value is null.

  Args:
      columns: names of the columns
-#}
{% test unique_key(model, columns) %}

select {{ columns | join(', ') }}, count(*) as copies
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1 or {{ columns | join(' is null or ') }} is null

{% endtest %}
