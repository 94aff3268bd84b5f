{#-
  Retention: old messages leave raw and staging after a build in which every test passed, whole landing dates at a time, once every
  model has read them. RETENTION_RAW_DAYS is for accepted messages and their copies, RETENTION_DEAD_LETTER_DAYS for rejected ones,
  which leave dead_letters too. The state table removed_messages has, per stream and kind, the time before which what landed is gone.
  Models that count landing dates again, and the tests of the accounting, leave out dates from which anything is gone.
-#}

{% macro kinds_of_messages() %}
    {{ return({
        'accepted': {'days': env_var('RETENTION_RAW_DAYS', ''), 'condition': 'reject_reason is null'},
        'rejected': {'days': env_var('RETENTION_DEAD_LETTER_DAYS', ''), 'condition': 'reject_reason is not null'}
    }) }}
{% endmacro %}

{#- Reads removed_messages once per run, for `removed_before`. A removal is begun before its first row is deleted. -#}
{% macro read_removals() %}
    {% set found = {'begun': {}, 'done': {}} %}
    {% for row in run_query(
        'select stream, kind, step, ' ~ timestamp_text('max(removed_before)') ~ ' as removed_before from ' ~ state_table('removed_messages')
        ~ ' group by stream, kind, step'
    ).rows %}
        {% do found[row.step].setdefault(row.stream, {}).update({row.kind: row.removed_before}) %}
    {% endfor %}
    {% do graph.update({'removals': found}) %}
{% endmacro %}

{#- Returns, by stream, the time as text from which on all messages that landed are still there; without streams that have all. -#}
{% macro removed_before() %}
    {% set found = {} %}
    {% for stream, kinds in graph.get('removals', {}).get('begun', {}).items() %}
        {% do found.update({stream: kinds.values() | max}) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{#-
  `where {{ landed_whole() }}`: the messages of landing dates that still have all of theirs.

  Args:
      landed_at: SQL of the timestamp at which a row landed
-#}
{% macro landed_whole(landed_at='landed_at') -%}
    {%- set gone = [] -%}
    {%- for stream, time in removed_before().items() -%}
        {%- do gone.append("not (stream = '" ~ stream ~ "' and " ~ landed_at ~ " < timestamp '" ~ time ~ "')") -%}
    {%- endfor -%}
    ({{ gone | join(' and ') if gone else 'true' }})
{%- endmacro %}

{#- Removes what is old enough. Killed at any moment, the next run removes the rest. -#}
{% macro remove_old_messages() %}
    {% set kinds = kinds_of_messages() %}
    {% if env_var('BUILD_PREFIX', '') or not (kinds.accepted.days or kinds.rejected.days) %}
        {{ return(none) }}
    {% endif %}
    {% do read_removals() %}
    {% set today = modules.datetime.datetime.now(modules.pytz.utc).date() %}
    {% set built = dates_read_by_every_model() %}
    {% for kind, retention in kinds.items() if retention.days %}
        {% set first_kept = (today - modules.datetime.timedelta(days=retention.days | int)).isoformat() %}
        {% for stream in streams() if stream in built %}
            {% set done = graph.removals.done.get(stream, {}).get(kind) %}
            {#- The date of the newest message stays: by it, landing and builds know how far they are. -#}
            {% set until = [first_kept, built[stream]] | min ~ ' 00:00:00' %}
            {% if not done or until > done %}
                {% do record_removal(stream, kind, 'begun', until) %}
                {% do remove_messages(stream, kind, retention.condition, done, until) %}
                {% do record_removal(stream, kind, 'done', until) %}
            {% endif %}
        {% endfor %}
    {% endfor %}
{% endmacro %}

{#- Returns, by stream, the date as ISO text of the newest message that all its models have read; without streams of which one has
    read none. -#}
{% macro dates_read_by_every_model() %}
    {% set times = {} %}
    {% for id in incremental_models_in_order() %}
        {% for stream in streams_of(id) %}
            {% do times.setdefault(stream, []).append(latest_watermarks().get(graph.nodes[id].name, {}).get(stream)) %}
        {% endfor %}
    {% endfor %}
    {% set found = {} %}
    {% for stream, of_stream in times.items() if none not in of_stream %}
        {% do found.update({stream: (of_stream | min)[:10]}) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{% macro record_removal(stream, kind, step, until) %}
    {% do run_query(
        'insert into ' ~ state_table('removed_messages') ~ ' (stream, kind, step, removed_before, recorded_at) '
        ~ "select '" ~ stream ~ "', '" ~ kind ~ "', '" ~ step ~ "', timestamp '" ~ until ~ "', " ~ now_utc()
    ) %}
    {% do graph.removals[step].setdefault(stream, {}).update({kind: until}) %}
{% endmacro %}

{#-
  Args:
      condition: SQL of the kind of messages, in staging
      done: time as text before which all of them are gone; none if none are
      until: time as text before which all of them shall be gone
-#}
{% macro remove_messages(stream, kind, condition, done, until) %}
    {% set raw = raw_table(stream) %}
    {% set staging = relation_of('stg_' ~ stream) %}
    {% set landed = "landed_at < timestamp '" ~ until ~ "'" ~ (" and landed_at >= timestamp '" ~ done ~ "'" if done else '') %}
    {#- raw first: staging tells which messages are rejected -#}
    {% do run_query(
        'delete from ' ~ raw ~ ' as message where ' ~ landed ~ ' and exists (select 1 from ' ~ staging ~ ' as staged where '
        ~ landed ~ ' and ' ~ condition ~ ' and staged.message_id = message.message_id and staged.landed_at = message.landed_at)'
        ~ except_positions(raw)
    ) %}
    {% do run_query('delete from ' ~ staging ~ ' where ' ~ landed ~ ' and ' ~ condition) %}
    {% if kind == 'rejected' %}
        {% set of_stream = ' from ' ~ relation_of('dead_letters') ~ " where stream = '" ~ stream ~ "' and " ~ landed %}
        {% do run_query(
            'insert into ' ~ state_table('touched_partitions') ~ ' (model, partition_date, recorded_at) '
            ~ "select distinct 'dead_letters', cast(landed_at as date), " ~ change_time() ~ of_stream
        ) %}
        {% do run_query('delete' ~ of_stream) %}
    {% endif %}
{% endmacro %}

{% macro raw_table(stream) %}
    {{ return((graph.sources.values() | selectattr('source_name', 'equalto', 'raw') | selectattr('name', 'equalto', stream) | first).relation_name) }}
{% endmacro %}

{% macro relation_of(name) %}
    {% set node = model_named(name) %}
    {{ return(api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias)) }}
{% endmacro %}

{#- SQL that excepts rows of a raw table by which landing knows its position: on BigQuery the last row of each partition. -#}
{% macro except_positions(raw) -%}
    {{ return(adapter.dispatch('except_positions')(raw)) }}
{%- endmacro %}

{% macro duckdb__except_positions(raw) -%}
{%- endmacro %}

{% macro bigquery__except_positions(raw) -%}
    {{ return(
        ' and (message.next_offset is null or not exists (select 1 from (select source, topic, topic_id, `partition`, max(next_offset) as '
        ~ 'last_offset from ' ~ raw ~ ' group by source, topic, topic_id, `partition`) as positions where positions.source = '
        ~ "message.source and positions.topic = message.topic and ifnull(positions.topic_id, '') = ifnull(message.topic_id, '') "
        ~ 'and positions.`partition` = message.`partition` and positions.last_offset = message.next_offset))'
    ) }}
{%- endmacro %}

{#-
  Stops a rebuild of models that are made from messages where some messages are gone: their rows would be lost. With var
  lose_removed_messages, the rebuild goes on without them. Marts that are made from the facts can always be rebuilt.
-#}
{% macro check_removed_messages() %}
    {% set rebuilt, kept = [], [] %}
    {% for id in incremental_models_in_order() if is_made_from_messages(id) %}
        {% set is_affected = streams_of(id) | select('in', removed_before()) | list %}
        {% set is_rebuilt = id in selected_resources and (flags.FULL_REFRESH or id in graph.planned_rebuilds) %}
        {% do (rebuilt if is_rebuilt else kept).append(graph.nodes[id].name) if is_affected %}
    {% endfor %}
    {% if not rebuilt %}
        {{ return(none) }}
    {% endif %}
    {% if not var('lose_removed_messages') %}
        {% do exceptions.raise_compiler_error(
            'a rebuild of ' ~ rebuilt[0] ~ ' would lose ' ~ count_removed() ~ ' messages that retention has removed from raw and staging '
            ~ '(' ~ removed_before().keys() | sort | join(', ') ~ "): leave it out, or confirm by VARS='{lose_removed_messages: true}'"
        ) %}
    {% elif kept %}
        {% do exceptions.raise_compiler_error(
            'to lose the removed messages everywhere, rebuild everything: ' ~ kept[0] ~ ' would keep them. Run '
            ~ "`make build FULL_REFRESH=1 VARS='{lose_removed_messages: true}'`"
        ) %}
    {% endif %}
    {% do run_query('delete from ' ~ state_table('removed_messages') ~ ' where true') %}
    {% do read_removals() %}
{% endmacro %}

{#- Whether a model has rows that only messages hold: it reads staging and not the facts, or raw itself. -#}
{% macro is_made_from_messages(unique_id) %}
    {% set parents = incremental_parents(unique_id) %}
    {% set reads_facts = model_named('fct_events').unique_id in parents %}
    {% for parent in parents %}
        {% if parent.startswith('source.') or (graph.nodes[parent].name.startswith('stg_') and not reads_facts) %}
            {{ return(true) }}
        {% endif %}
    {% endfor %}
    {{ return(false) }}
{% endmacro %}

{#- Returns the number of the messages that are accounted for and gone. -#}
{% macro count_removed() %}
    {% set counts = [] %}
    {% for stream, time in removed_before().items() %}
        {% do counts.append(
            '(select coalesce(sum(landed), 0) from ' ~ relation_of('landing_reconciliation') ~ " where stream = '" ~ stream
            ~ "' and landed_date < date '" ~ time[:10] ~ "') - (select count(*) from " ~ raw_table(stream) ~ " where landed_at < timestamp '"
            ~ time ~ "')"
        ) %}
    {% endfor %}
    {{ return(run_query('select ' ~ counts | join(' + ') ~ ' as removed').rows[0].removed | int) }}
{% endmacro %}
