{#- Written by `python -m dbt_project.contracts` from streams/*.yml: change those. -#}
{% macro contracts() %}
    {{ return({
        'checkouts': {'kind': 'event', 'fields': ['checkout_id', 'user_id', 'product_id', 'payment_method', 'total_amount', 'shipping_address', 'billing_address', 'user_agent', 'ip_address', 'datetime_occured']},
        'clicks': {'kind': 'event', 'fields': ['click_id', 'user_id', 'product_id', 'product', 'price', 'url', 'user_agent', 'ip_address', 'datetime_occured']},
        'ecom_events': {'kind': 'event', 'fields': ['event_time', 'event_type', 'product_id', 'category_id', 'category_code', 'brand', 'price', 'user_id', 'user_session']},
        'page_views': {'kind': 'event', 'fields': ['event_id', 'session_id', 'page_title', 'page_id', 'account_number', 'user_id', 'user_pseudo_id', 'event_name', 'ga_event_dtm', 'event_timestamp_ms', 'timestamp_ms', 'event_timestamp', 'event_params', 'event_bundle_sequence_id', 'batch_event_index', 'batch_page_id', 'batch_ordering_id']},
        'post_events': {'kind': 'event', 'fields': ['event_id', 'user_id', 'post_id', 'created_at', 'event_type']},
        'web_events': {'kind': 'event', 'fields': ['event_id', 'user_id', 'publisher_id', 'event', 'product', 'browser', 'environment', 'country', 'OS', 'city', 'timestamp', 'price', 'actor', 'location', 'generator']},
        'posts': {'kind': 'entity', 'fields': ['post_id', 'user_id', 'post_text', 'created_at', 'updated_at', 'deleted_at', '__deleted']},
        'products': {'kind': 'entity', 'fields': ['product_id', 'name', 'category_code', 'category', 'model', 'brand', 'price', 'created_at', 'updated_at', 'deleted_at', '__deleted']},
        'users': {'kind': 'entity', 'fields': ['user_id', 'user_name', 'first_name', 'last_name', 'country_code', 'favorite_color', 'created_at', 'updated_at', 'deleted_at', '__deleted']}
    }) }}
{% endmacro %}
