"""What Ray Train leaves of a group's checkpoints when it is interrupted: what can be continued, and what must go.

A folder of checkpoints has one folder, GROUP, which has the checkpoints. Its name says nothing of the group's shape, so
that a group with another number of workers or ZeRO stage finds them too.
"""

import json
from typing import Any

from east_ray.config import InputError, TrainingConfig
from east_ray.storage import Folder

#: The folder that Ray Train gets for its checkpoints.
GROUP = "group"


def shape(settings: TrainingConfig) -> str:
    """What a group may change between an interruption and going on."""
    plural = "s" if settings.num_workers > 1 else ""
    return f"{settings.num_workers} worker{plural} and ZeRO stage {settings.deepspeed.zero_stage}"


def checkpoint_metadata(training: str, settings: TrainingConfig, step: int) -> dict[str, Any]:
    """What a checkpoint says of itself: whose it is, after how many steps, and what group wrote it."""
    return {"training": training, "step": step, "shape": shape(settings)}


def interrupted(checkpoints: Folder) -> str | None:
    """The name of the training that a group was in the middle of, if it has left a complete checkpoint."""
    training: str | None = _newest_metadata(checkpoints).get("training")
    return training


def change_of_shape(checkpoints: Folder, settings: TrainingConfig) -> str | None:
    """A sentence, if the interrupted training goes on with these settings in another shape than before."""
    metadata = _newest_metadata(checkpoints)
    if metadata.get("shape", now := shape(settings)) == now:
        return None
    return f"training goes on after step {metadata['step']} with {now}; before it had {metadata['shape']}"


def _newest_metadata(checkpoints: Folder) -> dict[str, Any]:
    for run in checkpoints.names():
        for name in complete_checkpoints(checkpoints / run)[-1:]:
            metadata: dict[str, Any] = json.loads((checkpoints / run / name).read_text(".metadata.json") or "{}")
            return metadata
    return {}


def complete_checkpoints(run: Folder) -> list[str]:
    """Names of the checkpoints that Ray Train has listed as complete; none if its list itself is incomplete."""
    try:
        listed = json.loads(run.read_text("checkpoint_manager_snapshot.json") or "{}").get("checkpoint_results", [])
    except (ValueError, NotADirectoryError):
        return []
    names = [result["checkpoint_dir_name"] for result in listed]
    return names if set(names) <= set(run.names()) else []


def prepare_checkpoints(checkpoints: Folder) -> None:
    """Make a folder of checkpoints fit for a group, of any shape.

    Ray Train refuses to start from what a killed group or driver left half written or half removed, so that is removed.
    Raises InputError if there are complete checkpoints that an older version of this program has written.
    """
    for other in checkpoints.names():
        if other != GROUP and complete_checkpoints(checkpoints / other):
            raise InputError(
                "training: it was interrupted with an older version of east-ray, whose checkpoints this one cannot "
                f"read; end it with that version, or remove {checkpoints} to start it again"
            )
    run = checkpoints / GROUP
    complete = complete_checkpoints(run)
    if not complete:
        run.clear()
    for name in run.names():
        if name.startswith("checkpoint_") and name != "checkpoint_manager_snapshot.json" and name not in complete:
            (run / name).clear()
