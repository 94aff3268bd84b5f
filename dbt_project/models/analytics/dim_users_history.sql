-- Every version of every user with the time it was valid (SCD2), from the change log: exact in whatever order
-- versions arrive, since all versions of a user with a new one are put in order again.
{{ config(
    materialized='incremental',
    unique_key='version_key',
    cluster_by='user_id'
) }}

with new_versions as (
    select
        version_key,
        user_id,
        user_name,
        first_name,
        last_name,
        country_code,
        favorite_color,
        is_tombstone,
        created_at,
        updated_at,
        deleted_at,
        message_id,
        landed_at
    from {{ ref('stg_users') }}
    where reject_reason is null and {{ is_new() }}
),

all_versions as (
    select * from new_versions
    {% if is_incremental() %}
    union all
    select
        version_key,
        user_id,
        user_name,
        first_name,
        last_name,
        country_code,
        favorite_color,
        is_tombstone,
        created_at,
        updated_at,
        deleted_at,
        message_id,
        landed_at
    from {{ this }}
    where user_id in (select new_versions.user_id from new_versions)
    {% endif %}
),

-- of copies of a version the first landed wins
versions as (
    select * from all_versions
    qualify row_number() over (partition by version_key order by landed_at, message_id) = 1
),

-- at one instant a deletion comes last
ordered as (
    select
        *,
        row_number() over (partition by user_id order by updated_at, is_tombstone) as version_number,
        lead(updated_at) over (partition by user_id order by updated_at, is_tombstone) as next_updated_at
    from versions
)

select
    version_key,
    user_id,
    version_number,
    user_name,
    first_name,
    last_name,
    country_code,
    favorite_color,
    is_tombstone,
    is_tombstone or deleted_at is not null as is_deleted,
    created_at,
    updated_at,
    deleted_at,
    case when version_number = 1 and created_at < updated_at then created_at else updated_at end as valid_from,
    coalesce(next_updated_at, timestamp '9999-12-31') as valid_to,
    next_updated_at is null as is_current,
    message_id,
    landed_at
from ordered
