"""What the analyses are asked: of each set the arguments that a query takes."""

from engines.query import Query

SETS: tuple[dict[str, str], ...] = (
    {},
    {
        "start_time": "2026-01-03T07:30:00-05:00",
        "end_time": "2026-01-06 02:00",
        "start_date": "2026-01-03",
        "end_date": "2026-01-05",
        "active_days": "1",
        "limit": "1000",
    },
    {
        "brand": "gLOw",
        "product_id": "lamp",
        "half_life_seconds": "1",
        "region": "euROPE",
        "stream": "Clicks",
        "property": "Product_NAME",
        "reason": "Invalid:Timestamp",
        "id": "'0",
    },
    {
        "category": "HOME.lamp",
        "event_type": "Purchase",
        "limit": "3",
        "steps": "2",
        "min_steps": "3",
        "values_each": "2",
        "half_life_seconds": "60",
        "field": "Price",
    },
)
OF_LANDING = {
    "start_time": "2026-02-01T00:00:01Z",
    "end_time": "2026-02-03",
    "start_date": "2026-02-01",
    "end_date": "2026-02-02",
}
"""The days on which messages landed, for queries of these."""


def arguments_of(query: Query) -> list[dict[str, str]]:
    """At least two sets, and each choice of a parameter that lists its values."""
    takes = [parameter.name for parameter in query.parameters]
    period = OF_LANDING if query.name in ("data_quality", "dead_letters", "dead_letters_by_reason") else {}
    sets = [{name: period.get(name, given[name]) for name in given if name in takes} for given in SETS]
    sets += [{one.name: choice} for one in query.parameters for choice in one.choices if choice != one.default]
    return [given for place, given in enumerate(sets) if given not in sets[:place]]
