-- The best-selling brands, of one category or of all. Names that differ only in case are one brand.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set category = param('category', 'all', 'string') %}
{%- set sort = param('sort', 'revenue', ['revenue', 'purchases', 'carts', 'views', 'users', 'products']) %}
{%- set limit = param('limit', 10, 'integer') %}

{{ best_sellers('brand', 'brand', start_time, end_time, of_products(category=category), sort, limit) }}
