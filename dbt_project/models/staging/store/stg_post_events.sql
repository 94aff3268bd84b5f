-- One row a message, parsed once.
{{ config(meta={'settings': ['earliest_event_at']}) }}
{{ staged_events('post_events') }}
