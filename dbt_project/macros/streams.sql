{#- The streams that are landed: one raw table and one staging model each, of the same name. -#}
{% macro streams() %}
    {{ return(contracts().keys() | list) }}
{% endmacro %}

{% macro event_streams() %}
    {% set found = [] %}
    {% for stream, contract in contracts().items() if contract.kind == 'event' %}
        {% do found.append(stream) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{#- Stream to the history that is made from it. -#}
{% macro entity_streams() %}
    {% set found = {} %}
    {% for stream, contract in contracts().items() if contract.kind == 'entity' %}
        {% do found.update({stream: 'dim_' ~ stream ~ '_history'}) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{#- The fields of a stream's bodies, in the order of its contract. -#}
{% macro fields_of(stream) %}
    {{ return(contracts()[stream].fields | map(attribute='path') | list) }}
{% endmacro %}
