"""Describes a failure for a reader: the messages of each run, and the rows that differ."""

from collections.abc import Iterator, Sequence

from dbt_project.exactness.history import Failure, Row
from dbt_project.warm import WarmProject

ROWS_SHOWN = 5
MESSAGES_SHOWN = 12
"""Maximum messages shown per run."""


def describe(project: WarmProject, failure: Failure, marts: Sequence[str], from_empty: bool) -> Iterator[str]:
    """Lines of text: what differs, and the messages that cause it."""
    messages = sum(len(run.messages) for run in failure.history)
    of_what = failure.model if failure.model in marts else f"{failure.model}, which {marts[0]} reads,"
    what = "differs from a full refresh" if failure.error is None else "cannot be built"
    yield f"{of_what} {what}. The smallest case found, {messages} message{'s'[: messages != 1]}:"
    yield ""
    if from_empty:
        yield "run 0 builds an empty warehouse"
    for number, run in enumerate(failure.history, start=1):
        yield f"run {number} lands" + ("" if run.messages else " nothing")
        for message in sorted(run.messages, key=lambda message: message.commit)[:MESSAGES_SHOWN]:
            yield f"  {message}"
        if len(run.messages) > MESSAGES_SHOWN:
            yield f"  and {len(run.messages) - MESSAGES_SHOWN} more; SHRINK_SECONDS=600 looks longer for a smaller case"
        yield f"  and builds {', '.join(run.only) or 'everything'}"
    yield ""
    if failure.error is not None:
        yield f"run {len(failure.history)} fails: {failure.error}"
        return
    yield f"after run {len(failure.history)}:"
    node = next(node for node in project.nodes if node.name == failure.model)
    unique_key = getattr(node.config, "unique_key", None) or []
    yield from _differences(failure, [unique_key] if isinstance(unique_key, str) else unique_key)


def _differences(failure: Failure, unique_key: Sequence[str]) -> Iterator[str]:
    refreshed = {tuple(repr(row.get(name)) for name in unique_key): row for row in failure.only_refreshed}
    lines: list[str] = []
    for row in failure.only_incremental:
        other = refreshed.pop(tuple(repr(row.get(name)) for name in unique_key), None) if unique_key else None
        if other is None:
            lines.append(f"  only incremental: {_text(row)}")
        else:
            names = [name for name in row if repr(row[name]) != repr(other[name])]
            lines.append(
                f"  {_text({name: row[name] for name in unique_key})}: {_text({name: row[name] for name in names})};"
                f" after a full refresh {_text({name: other[name] for name in names})}"
            )
    left = refreshed.values() if unique_key else failure.only_refreshed
    lines += [f"  only after a full refresh: {_text(row)}" for row in left]
    yield from lines[:ROWS_SHOWN]
    if len(lines) > ROWS_SHOWN:
        yield f"  and {len(lines) - ROWS_SHOWN} more rows"


def _text(row: Row) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items())
