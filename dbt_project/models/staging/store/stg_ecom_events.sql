-- One row a message, parsed once. The bodies come from a CSV. The producer is at-least-once and gives no id, so
-- an event is known by all nine fields.
{{ config(meta={'settings': ['earliest_event_at']}) }}
{{ staged_events('ecom_events') }}
