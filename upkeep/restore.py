"""Restores a backup to the warehouse that the settings name: DuckDB or BigQuery."""

from pathlib import Path

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS
from engines.backup import Manifest, OnTable, read_manifest, verify
from engines.factory import engine_for
from publishing.versions import CURRENT, published_folder


def restore(settings: Settings, folder: Path, on_table: OnTable) -> Manifest:
    """Verify a backup and fill an empty warehouse from it. What was published before is no longer current.

    Args:
        on_table: called twice per table: when it is verified, and when it is restored.

    Raises:
        UserError: when the backup is not complete, is damaged or of another format, or the warehouse is not empty.
            Then nothing has changed.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest, on_table)
    engine_for(settings).restore(folder, manifest, on_table)
    link = published_folder(settings) / CURRENT
    try:
        link.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"restored, but {link} still shows what was published before: {error.strerror}; remove it, then build"
        ) from error
    return manifest


def redelivery_notes(settings: Settings, manifest: Manifest) -> list[str]:
    """A line per subscription of Pub/Sub: what was acknowledged since the backup comes again only if it is rewound."""
    return [
        f"{settings.subscription(STREAMS[stream])}: the newest landed message is of {time:%Y-%m-%d %H:%M:%S} UTC"
        for stream, time in manifest.newest_from_pubsub.items()
        if stream in STREAMS
    ]
