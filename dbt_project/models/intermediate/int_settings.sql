-- One row: the vars of the last build, for readers that state the rules of a mart.
select {{ var('attribution_window_seconds') }} as attribution_window_seconds
