-- One row a message, parsed once. user_agent and ip_address go no further than this.
{{ config(meta={'settings': ['earliest_event_at']}) }}
{{ staged_events('clicks') }}
