"""Histories and current states of entities."""

from collections.abc import Sequence
from datetime import datetime

from specification.messages import Version, published
from specification.rows import Mart, grouped
from specification.values import ratio

Countries = dict[str, tuple[str, str]]
"""country_code to (country_name, region)."""

END_OF_TIME = datetime(9999, 12, 31)


def history(versions: Sequence[Version], id_column: str) -> Mart:
    """Every version with the time in which it was valid: from its own time to that of the next, the last one for ever.

    A tombstone deletes all versions before it in the log, whatever clock they had: its time is at least theirs. A later
    version in the log that is not older restores the entity: its time is at least the tombstone's. Versions that start
    at the same time are ordered by tombstones before them, then by their own time, then by the log. The first version
    is valid from its created_at, if that is earlier.
    """
    rows: Mart = []
    for entity_id, of_entity in grouped(versions, lambda version: version.id).items():
        placed: list[tuple[datetime, int, datetime, int, Version]] = []
        in_log = sorted(of_entity, key=lambda version: version.message.log_order)
        newest = in_log[0].updated_at
        tombstones: list[datetime] = []
        deleted_at = newest
        for place_in_log, version in enumerate(in_log):
            newest = max(newest, version.updated_at)
            effective_at = version.updated_at
            if version.is_tombstone:
                tombstones.append(version.updated_at)
                effective_at = deleted_at = newest
            elif tombstones and version.updated_at >= max(tombstones):
                effective_at = max(version.updated_at, deleted_at)
            placed.append((effective_at, len(tombstones), version.updated_at, place_in_log, version))
        placed.sort(key=lambda one: one[:4])
        for number, (effective_at, *_, version) in enumerate(placed, 1):
            following = placed[number][0] if number < len(placed) else None
            valid_from = effective_at
            if number == 1 and version.created_at is not None:
                valid_from = min(version.created_at, effective_at)
            rows.append(
                {
                    "version_key": version.key,
                    **version.values,
                    id_column: entity_id,
                    "version_number": number,
                    "is_tombstone": version.is_tombstone,
                    "is_deleted": version.is_tombstone or version.deleted_at is not None,
                    "created_at": version.created_at,
                    "updated_at": version.updated_at,
                    "deleted_at": version.deleted_at,
                    "valid_from": valid_from,
                    "valid_to": END_OF_TIME if following is None else following,
                    "is_current": following is None,
                    "message_id": version.message.message_id,
                    "published_at": published(version.message),
                    "landed_at": version.landed_at,
                }
            )
    return rows


def current(versions: Mart, *columns: str) -> Mart:
    """The current version of each entity that is not deleted."""
    living = [version for version in versions if version["is_current"] and not version["is_deleted"]]
    return [{name: version[name] for name in (*columns, "created_at", "updated_at")} for version in living]


def users(versions: Mart, user_days: Mart, countries: Countries) -> Mart:
    by_user = grouped(user_days, lambda row: row["user_id"])
    rows = []
    names = ("user_id", "user_name", "first_name", "last_name", "country_code", "favorite_color")
    for user in current(versions, *names):
        days = by_user.get(user["user_id"], [])
        country_name, region = countries.get(user["country_code"], (None, None))
        rows.append(
            {
                **user,
                "country_name": country_name,
                "region": region,
                **{name: sum(day[name] for day in days) for name in ("events", "sessions", "likes_given")},
                "first_active_date": min((day["reporting_date"] for day in days), default=None),
                "last_active_date": max((day["reporting_date"] for day in days), default=None),
            }
        )
    return rows


def products(versions: Mart, product_days: Mart) -> Mart:
    by_product = grouped(product_days, lambda row: row["product_id"])
    totals = ("views", "carts", "purchases", "revenue")
    return [
        {**product, **{name: sum(day[name] for day in by_product.get(product["product_id"], [])) for name in totals}}
        for product in current(versions, "product_id", "name", "category_code", "category", "model", "brand", "price")
    ]


def posts(versions: Mart, post_days: Mart) -> Mart:
    by_post = grouped(post_days, lambda row: row["post_id"])
    rows = []
    for post in current(versions, "post_id", "user_id", "post_text"):
        days = by_post.get(post["post_id"], [])
        views, likes = sum(day["views"] for day in days), sum(day["likes"] for day in days)
        rows.append({**post, "daily_views": views, "likes": likes, "like_ratio": ratio(likes, views)})
    return rows
