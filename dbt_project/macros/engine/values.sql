{#- Text as a whole number; null if it is not one. -#}
{% macro to_integer(text) -%}
    {{ return(adapter.dispatch('to_integer')(text)) }}
{%- endmacro %}

{#- A cast alone would round 1.5 and read 1e3. -#}
{% macro duckdb__to_integer(text) -%}
    case when regexp_full_match({{ text }}, '-?[0-9]+') then try_cast({{ text }} as bigint) end
{%- endmacro %}

{#- A cast alone would read 0x1 and spaces. -#}
{% macro bigquery__to_integer(text) -%}
    case when regexp_contains({{ text }}, r'^-?[0-9]+$') then safe_cast({{ text }} as int64) end
{%- endmacro %}

{#- Text as an amount of money; null if it is not a number. Decimal, so that sums do not depend on the order of the rows. -#}
{% macro to_amount(text) -%}
    {{ return(adapter.dispatch('to_amount')(text)) }}
{%- endmacro %}

{% macro duckdb__to_amount(text) -%}
    try_cast({{ text }} as numeric(18, 4))
{%- endmacro %}

{#- Even SAFE_CAST to NUMERIC(18, 4) raises an error if the amount has too many digits. -#}
{% macro bigquery__to_amount(text) -%}
    (select case when abs(amount) < 100000000000000 then cast(amount as numeric) end
    from unnest([safe.round(safe_cast({{ text }} as bignumeric), 4)]) as amount)
{%- endmacro %}

{#- An amount as text, without trailing zeros: the engines differ in how many they write. -#}
{% macro amount_text(amount) -%}
    {%- set text = 'cast(' ~ amount ~ ' as ' ~ dbt.type_string() ~ ')' -%}
    case when {{ text }} like '%.%' then rtrim(rtrim({{ text }}, '0'), '.') else {{ text }} end
{%- endmacro %}

{#- A sum of amounts; 0 if there are none. -#}
{% macro sum_of_amounts(amounts) -%}
    cast(coalesce(sum({{ amounts }}), 0) as numeric(33, 4))
{%- endmacro %}

{#- The quotient of two counts to four decimals, rounded half up; null if the second is 0. Without floating point, in which
    an exact half is sometimes rounded down. -#}
{% macro ratio(part, whole) -%}
    {{ return(adapter.dispatch('ratio')(part, whole)) }}
{%- endmacro %}

{% macro duckdb__ratio(part, whole) -%}
    cast(cast((20000 * {{ part }} + {{ whole }}) // nullif(2 * {{ whole }}, 0) as numeric(18, 0)) * cast(0.0001 as numeric(4, 4)) as numeric(18, 4))
{%- endmacro %}

{% macro bigquery__ratio(part, whole) -%}
    cast(round(cast({{ part }} as numeric) / nullif({{ whole }}, 0), 4) as numeric(18, 4))
{%- endmacro %}

{#- The average of amounts or seconds to four decimals, rounded half up as in `ratio`; null if there are none. -#}
{% macro average(amounts) -%}
    {{ return(adapter.dispatch('average')(amounts)) }}
{%- endmacro %}

{% macro duckdb__average(amounts) -%}
    {{ ratio('cast(sum(' ~ amounts ~ ') * 1000000 as hugeint)', '(count(' ~ amounts ~ ') * 1000000)') }}
{%- endmacro %}

{#- BIGNUMERIC, because a quotient truncated to the nine decimals of NUMERIC may look like an exact half. -#}
{% macro bigquery__average(amounts) -%}
    cast(round(cast(sum({{ amounts }}) as bignumeric) / nullif(count({{ amounts }}), 0), 4) as numeric(18, 4))
{%- endmacro %}

{#- A hash of texts as identity, the same on both engines. The length precedes each text and nulls are marked, so that two
    different lists of texts are never hashed as the same text. With a delimiter alone, as in dbt_utils, they can be: 'a-b',
    'c' and 'a', 'b-c'. -#}
{% macro surrogate_key(texts) -%}
    {%- set parts = [] -%}
    {%- for text in texts -%}
        {%- do parts.append("coalesce(cast(length(" ~ text ~ ") as " ~ dbt.type_string() ~ ") || ':' || " ~ text ~ ", 'null')") -%}
    {%- endfor -%}
    {{ dbt.hash('concat(' ~ parts | join(", ',', ") ~ ')') }}
{%- endmacro %}

{#- Whether a text is empty or what programs write for a missing value, in upper or lower case, with or without spaces around. -#}
{% macro is_no_value(text) -%}
    {{ return(adapter.dispatch('is_no_value')(text)) }}
{%- endmacro %}

{% macro duckdb__is_no_value(text) -%}
    regexp_full_match({{ text }}, '(?i)\s*(undefined|null|nan|none|nil|\(not set\))?\s*')
{%- endmacro %}

{% macro bigquery__is_no_value(text) -%}
    regexp_contains({{ text }}, r'(?i)^\s*(undefined|null|nan|none|nil|\(not set\))?\s*$')
{%- endmacro %}

{#- Whether a text has a control character (ASCII 0 to 31, or 127). -#}
{% macro has_control_characters(text) -%}
    {{ return(adapter.dispatch('has_control_characters')(text)) }}
{%- endmacro %}

{% macro duckdb__has_control_characters(text) -%}
    regexp_matches({{ text }}, '[\x00-\x1f\x7f]')
{%- endmacro %}

{% macro bigquery__has_control_characters(text) -%}
    regexp_contains({{ text }}, r'[\x00-\x1f\x7f]')
{%- endmacro %}

{#-
  Columns for `order by`: the order in which the messages of a stream landed, and within one commit that of the log. Message
  ids of Kafka and of the spool end in /partition/offset. These are compared as numbers: as text, 1060 comes before 888. Ids of
  Pub/Sub have no such end, so its messages are ordered by published_at.
-#}
{% macro log_order() -%}
    landed_at, {{ log_number('/([0-9]+)/[0-9]+$') }}, {{ log_number('/([0-9]+)$') }}, published_at, message_id
{%- endmacro %}

{#- The number that a pattern captures in message_id; -1 if there is none. -#}
{% macro log_number(pattern) -%}
    {{ return(adapter.dispatch('log_number')(pattern)) }}
{%- endmacro %}

{% macro duckdb__log_number(pattern) -%}
    coalesce(try_cast(regexp_extract(message_id, '{{ pattern }}', 1) as bigint), -1)
{%- endmacro %}

{% macro bigquery__log_number(pattern) -%}
    coalesce(safe_cast(regexp_extract(message_id, r'{{ pattern }}') as int64), -1)
{%- endmacro %}

{#- Text as true or false; null if it is neither. -#}
{% macro to_boolean(text) -%}
    case lower({{ text }}) when 'true' then true when '1' then true when 'false' then false when '0' then false end
{%- endmacro %}

{#- A text as an SQL literal, escaped; dbt.string_literal does not escape. -#}
{% macro text_literal(text) -%}
    {{ return(adapter.dispatch('text_literal')(text)) }}
{%- endmacro %}

{% macro duckdb__text_literal(text) -%}
    '{{ text.replace("'", "''") }}'
{%- endmacro %}

{% macro bigquery__text_literal(text) -%}
    '{{ text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") }}'
{%- endmacro %}

{#- HMAC-SHA256 (RFC 2104) of a text with the secret key of the warehouse, in hexadecimal. Statements read the key from a table
    and do not contain it, because dbt logs them. The table is in the raw schema: who can read that sees the text anyway.
    It is not a source(), which unit tests would replace with their own rows. -#}
{% macro pseudonym(text) -%}
    {%- set raw = env_var('DATASET_PREFIX', '') ~ 'raw' -%}
    {%- set key = api.Relation.create(database=target.database, schema=raw, identifier='pseudonym_key') -%}
    {{ return(adapter.dispatch('pseudonym')(text, key)) }}
{%- endmacro %}

{% macro duckdb__pseudonym(text, key) -%}
    sha256((select outer_pad from {{ key }}) || unhex(sha256((select inner_pad from {{ key }}) || encode({{ text }}))))
{%- endmacro %}

{% macro bigquery__pseudonym(text, key) -%}
    to_hex(sha256(concat(
        (select outer_pad from {{ key }}), sha256(concat((select inner_pad from {{ key }}), cast({{ text }} as bytes)))
    )))
{%- endmacro %}
