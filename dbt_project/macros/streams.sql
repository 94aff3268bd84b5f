{#- The streams that are landed: one raw table and one staging model each, of the same name. -#}
{% macro streams() %}
    {{ return(event_streams() + entity_streams().keys() | list) }}
{% endmacro %}

{% macro event_streams() %}
    {{ return(['web_events', 'page_views', 'clicks', 'checkouts', 'ecom_events', 'post_events']) }}
{% endmacro %}

{#- Stream to the history that is made from it. -#}
{% macro entity_streams() %}
    {{ return({'users': 'dim_users_history', 'products': 'dim_products_history', 'posts': 'dim_posts_history'}) }}
{% endmacro %}

{#- The columns that say what an event was about, in the order of fct_events. Each stream fills some of them. -#}
{% macro event_attributes() %}
    {{ return([
        'user_id', 'source_session_id', 'product_id', 'post_id', 'page_title', 'category_code', 'brand', 'price',
        'total_amount', 'country', 'city', 'browser', 'os', 'url', 'engaged_seconds', 'account_number', 'traffic_source'
    ]) }}
{% endmacro %}
