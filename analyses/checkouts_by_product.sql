-- Checkouts of each product, and how many of them a click led to.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set product_id = param('product_id', 'all', 'string') %}
{%- set limit = param('limit', 20, 'integer') %}

select
    attribution.product_id,
    products.name as product_name,
    count(*) as checkouts,
    count(case when attribution.is_attributed then 1 end) as attributed_checkouts,
    {{ ratio('count(case when attribution.is_attributed then 1 end)', 'count(*)') }} as attributed_share,
    {{ sum_of_amounts('attribution.total_amount') }} as amount,
    {{ average('attribution.seconds_to_checkout') }} as average_seconds_to_checkout
from {{ ref('fct_checkout_attribution') }} as attribution
left join {{ ref('dim_products_history') }} as products
    on attribution.product_id = products.product_id and products.is_current
where attribution.event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
    and attribution.checkout_at >= {{ start_time }} and attribution.checkout_at < {{ end_time }}
    and (lower({{ product_id }}) = 'all' or attribution.product_id = {{ product_id }})
group by attribution.product_id, products.name
order by checkouts desc, attribution.product_id
limit {{ limit }}
