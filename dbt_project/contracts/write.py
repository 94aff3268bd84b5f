"""Writes the generated files, and removes those of streams that are gone."""

import re
from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError
from common.streams import STREAMS, Stream
from dbt_project.contracts.layout import FOLDERS, MACROS, PROJECT, SNAPSHOTS, SOURCES, STAGING, yaml_text
from dbt_project.contracts.macros import macros
from dbt_project.contracts.models import entity_models, event_models
from dbt_project.contracts.snapshots import snapshots
from dbt_project.contracts.sources import sources

BY_HAND = ("dim_users", "dim_products", "dim_posts")
"""Dimensions that are written by hand: they also have totals from other marts."""


def write_contracts(project: Path = PROJECT, streams: Mapping[str, Stream] = STREAMS) -> None:
    """Write the files that have changed, and remove the models of contracts that are gone.

    Raises:
        UserError: as in `files`.
    """
    written = files(project, streams)
    for path, text in written.items():
        if not (project / path).exists() or (project / path).read_text(encoding="utf-8") != text:
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(text, encoding="utf-8")
    for path in (path for folder in FOLDERS for path in (project / folder).glob("*.*")):
        if path.relative_to(project) not in written:
            path.unlink()


def parse_changed_contracts(target: Path, project: Path = PROJECT) -> None:
    """Make dbt parse everything again if the generated snapshots have changed since this folder's last parse.

    Otherwise dbt misses new snapshots (dbt-core issue 15785), and fails at one whose model is gone.

    Args:
        target: dbt's target folder, which has its parse cache. Each command has its own.
    """
    snapshots = (project / SNAPSHOTS).read_bytes()
    parsed, seen = target / "partial_parse.msgpack", target / "snapshots.yml"
    if parsed.exists() and not (seen.exists() and seen.read_bytes() == snapshots):
        parsed.unlink()
    target.mkdir(parents=True, exist_ok=True)
    seen.write_bytes(snapshots)


def files(project: Path, streams: Mapping[str, Stream]) -> dict[Path, str]:
    """Return the text of each generated file by its path in the project: the source, the macros, the snapshots, and the
    models not written by hand.

    Raises:
        UserError: if a model of a stream has the name of another model, if a model reads a stream without a contract,
            or if a stream with personal fields has a staging model written by hand.
    """
    by_hand = {
        path.stem: path.relative_to(project)
        for path in (project / "models").rglob("*.sql")
        if path.parent.relative_to(project) not in FOLDERS
    }
    written = {SOURCES: sources(streams), MACROS: macros(streams)}
    for stream in streams.values():
        models = entity_models(stream) if stream.kind == "entity" else event_models(stream)
        for model in models:
            path = model.path
            if path.name in by_hand and (path.parent == STAGING or path.name in BY_HAND):
                if path.parent == STAGING and (personal := [field.name for field in stream.fields if field.personal]):
                    raise UserError(
                        f"streams/{stream.name}.yml: {personal[0]} cannot be personal: its staging is written by hand"
                        f" and would keep it as plain text; drop or hash it in dbt_project/{by_hand[path.name]}"
                    )
                continue
            if path.name in by_hand or path.with_suffix(".sql") in written:
                raise UserError(f"streams/{stream.name}.yml: there is another model {path.name}; choose another name")
            written[path.with_suffix(".sql")] = f"{model.sql}\n"
            written[path.with_suffix(".yml")] = yaml_text({"models": [{"name": path.name, **model.properties}]})
    for path in by_hand.values():
        text = (project / path).read_text(encoding="utf-8")
        for name in re.findall(r"(?:ref\('stg_|source\('raw', ')(\w+)'\)", text):
            if name not in streams:
                raise UserError(
                    f"streams/{name}.yml is missing, but dbt_project/{path} reads this stream: restore the contract (a"
                    " stream without messages costs nothing), or delete the model and the models that read it"
                )
    written[SNAPSHOTS] = snapshots(streams)
    return written
