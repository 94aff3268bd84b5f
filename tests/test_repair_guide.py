"""What docs/repair.md shows is run, in a copy of the project."""

import re
from pathlib import Path

import pytest

from tests.test_streams_guide import Walk

GUIDE = (Path(__file__).parents[1] / "docs" / "repair.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def last_lines(said: str, shown: str) -> list[list[str]]:
    """As many lines as are shown, without the spaces between their words."""
    return [line.split() for line in said.splitlines()[-len(shown.splitlines()) :]]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_was_rejected_is_repaired_and_every_figure_is_right(tmp_path: Path) -> None:
    walk = Walk(tmp_path)
    reject, dry_run, recover, patch, figures = blocks("sh")
    would, recovered = blocks("text")
    facts = "select event_id, event_date::varchar, price::varchar, properties->>'currency' from analytics.fct_events"
    accounting = (
        "select sum(landed)::int, sum(accepted)::int, sum(duplicates)::int, sum(rejected)::int, sum(recovered)::int,"
        " bool_and(is_balanced) from analytics.landing_reconciliation"
    )
    assert re.search(r"orders +invalid:currency +3\b", walk.run(reject))
    assert walk.ask(accounting) == "[(4, 1, 0, 3, 0, True)]"

    assert last_lines(walk.run(dry_run), would) == [line.split() for line in would.splitlines()]
    assert walk.ask("select count(*) from raw.orders") == "[(4,)]"

    said = walk.run(recover)
    assert len(re.findall(r"orders +invalid:currency", said.rpartition("built")[2])) == 2
    assert walk.ask(f"{facts} order by 1") == (
        "[('o1', '2026-01-05', '20.0000', 'USD'), ('o2', '2026-01-05', '12.5000', 'EUR')]"
    )
    assert walk.ask(accounting) == "[(5, 2, 0, 3, 1, True)]"

    assert last_lines(walk.run(patch), recovered) == [line.split() for line in recovered.splitlines()]
    said = walk.run(figures)
    assert re.search(r"order +3\b", said)
    third = "('o3', '2026-01-06', '7.2500', 'EUR')"
    assert walk.ask(f"{facts} where event_id = 'o3'") == f"[{third}]"
    assert walk.ask(accounting) == "[(6, 3, 0, 3, 2, True)]"
    still_open = "select decode(payload)::json->>'order_id' from analytics.dead_letters where recovered_at is null"
    assert walk.ask(still_open) == "[('o4',)]"
    assert re.search(r"orders .* 1 *$", walk.run("make status"), re.MULTILINE)

    # under the present contract the original of o2 passes too, and what was recovered is its copy
    walk.run("make build FULL_REFRESH=1")
    assert walk.ask(f"select count(*), sum(price)::varchar from ({facts.replace('price::varchar', 'price')})") == (
        "[(3, '39.7500')]"
    )
    assert walk.ask(accounting) == "[(6, 3, 1, 2, 1, True)]"
