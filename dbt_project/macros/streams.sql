{#- Returns the names of all streams. Each has a raw table of that name and a staging model stg_<name>. -#}
{% macro streams() %}
    {{ return(contracts().keys() | list) }}
{% endmacro %}

{#- Returns the names of the streams of events. -#}
{% macro event_streams() %}
    {% set found = [] %}
    {% for stream, contract in contracts().items() if contract.kind == 'event' %}
        {% do found.append(stream) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{#- Returns, by name of entity stream, the model of its history. -#}
{% macro entity_streams() %}
    {% set found = {} %}
    {% for stream, contract in contracts().items() if contract.kind == 'entity' %}
        {% do found.update({stream: 'dim_' ~ stream ~ '_history'}) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{#- Returns the paths of a stream's fields, in the order of its contract. -#}
{% macro fields_of(stream) %}
    {{ return(contracts()[stream].fields | map(attribute='path') | list) }}
{% endmacro %}
