-- The accounting equals the number of rows of each table, over all dates. So messages that never reached staging,
-- deleted rows, and a raw table that no model reads fail the build. Landing dates of which retention has removed
-- messages are left out where it removes rows.
{%- set bounds = watermarks_of('landing_reconciliation') %}
{%- set whole = landed_whole('cast(landed_date as timestamp)') %}
{%- if execute and not bounds %}

-- nothing to compare before the first accounting
select 1 as relation
from (select 1 as one) as nothing
where false
{%- else %}

with accounted as (
    select
        stream,
        cast(sum(case when {{ whole }} then landed end) as bigint) as landed,
        cast(sum(accepted) as bigint) as accepted,
        cast(sum(case when {{ whole }} then rejected end) as bigint) as rejected
    from {{ ref('landing_reconciliation') }}
    group by stream
),

counted as (
    {% for stream in streams() %}
    {%- for relation in [source('raw', stream), ref('stg_' ~ stream)] %}
    -- leaves out what landed after the accounting
    select
        '{{ relation.schema }}.{{ relation.identifier }}' as relation,
        -- a difference of counts, because counting a whole table reads no column
        (
            select count(*)
            from {{ relation }}
            {%- if stream in removed_before() %}
            where landed_at >= timestamp '{{ removed_before()[stream] }}'
            {%- endif %}
        ) - (
            select count(*)
            from {{ relation }}
            where landed_at > timestamp '{{ bounds.get(stream, '2000-01-01') }}'
        ) as found,
        (
            select sum(accounted.landed)
            from accounted
            where accounted.stream = '{{ stream }}'
        ) as expected
    union all
    {%- endfor %}
    {%- endfor %}
    {%- for relation, column, names in accounted_relations() if is_as_far_as_the_accounting(relation.identifier) %}
    select
        '{{ relation.schema }}.{{ relation.identifier }}' as relation,
        count(*) as found,
        (
            select sum(accounted.{{ column }})
            from accounted
            where accounted.stream in (
                {%- for name in names %}
                '{{ name }}'{{ ',' if not loop.last }}
                {%- endfor %}
            )
        ) as expected
    from {{ relation }}
    {%- if column == 'rejected' %}
    where {{ landed_whole() }}
    {%- endif %}
    union all
    {%- endfor %}
    {%- for table in raw_tables_without_a_model() %}
    select
        '{{ table.schema }}.{{ table.identifier }}, which has no contract: bring back streams/{{ table.identifier }}.yml, or drop it and build with FULL_REFRESH=1'
            as relation,
        count(*) as found,
        0 as expected
    from {{ table }}
    union all
    {%- endfor %}
    select 'nothing' as relation, 0 as found, 0 as expected
)

select relation, found, coalesce(expected, 0) as expected
from counted
where found != coalesce(expected, 0)
{%- endif %}
