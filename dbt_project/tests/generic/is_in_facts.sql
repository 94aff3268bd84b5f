{#-
  Every event of a model is in fct_events. Both have the same event_date, so only the tested dates of the facts are
  read.

  Args:
      tested: name of the model
-#}
{% test is_in_facts(model, tested) %}
{%- set dates = changed_dates(tested) %}

with tested_events as (
    select event_key from {{ model }}
),

facts as (
    select event_key from {{ ref('fct_events') }}
    where {{ 'true' if dates is none else in_dates('event_date', dates) }}
)

select tested_events.event_key
from tested_events
left join facts on tested_events.event_key = facts.event_key
where facts.event_key is null

{% endtest %}
