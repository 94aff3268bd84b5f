-- The best-selling categories, of one brand or of all. Codes that differ only in case are one category.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set sort = param('sort', 'revenue', ['revenue', 'purchases', 'carts', 'views', 'users', 'products']) %}
{%- set limit = param('limit', 10, 'integer') %}

{{ best_sellers('category_code', 'category', start_time, end_time, of_products(brand=brand), sort, limit) }}
