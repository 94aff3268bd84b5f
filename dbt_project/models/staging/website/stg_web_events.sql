-- One row a message, parsed once. The nested activity object makes bodies of 5 to 20 KB: actor, location and
-- generator are kept as JSON text, the rest stays in raw.
{{ config(meta={'settings': ['earliest_event_at']}) }}
{{ staged_events('web_events') }}
