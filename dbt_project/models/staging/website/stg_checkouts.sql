-- One row a message, parsed once. Addresses, user_agent and ip_address go no further than this. A checkout is of one
-- product: the lines of an order share a checkout_id, and the product tells them apart.
{{ config(meta={'settings': ['earliest_event_at']}) }}
{{ staged_events('checkouts') }}
