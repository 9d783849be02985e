"""What Ray Train leaves of a group's checkpoints when it is interrupted: what can be continued, and what must go.

A folder of checkpoints has a folder per shape of the group, e.g. ``workers_2_zero_3``, which has the checkpoints.
"""

import json

from east_ray.config import InputError, TrainingConfig
from east_ray.storage import Folder


def shape(settings: TrainingConfig) -> str:
    """The name of a group's folder. DeepSpeed restores only what a group of the same shape saved."""
    return f"workers_{settings.num_workers}_zero_{settings.deepspeed.zero_stage}"


def interrupted(checkpoints: Folder) -> str | None:
    """The name of the training that a group was in the middle of, if it has left a complete checkpoint."""
    for run in checkpoints.names():
        for name in complete_checkpoints(checkpoints / run)[-1:]:
            metadata = json.loads((checkpoints / run / name).read_text(".metadata.json") or "{}")
            training: str | None = metadata.get("training")
            return training
    return None


def complete_checkpoints(run: Folder) -> list[str]:
    """Names of the checkpoints that Ray Train has listed as complete; none if its list itself is incomplete."""
    try:
        listed = json.loads(run.read_text("checkpoint_manager_snapshot.json") or "{}").get("checkpoint_results", [])
    except (ValueError, NotADirectoryError):
        return []
    names = [result["checkpoint_dir_name"] for result in listed]
    return names if set(names) <= set(run.names()) else []


def prepare_checkpoints(checkpoints: Folder, wanted: str) -> None:
    """Make a folder of checkpoints fit for a group of the wanted shape.

    Ray Train refuses to start from what a killed group or driver left half written or half removed, so that is removed.
    Raises InputError if there are complete checkpoints of another shape.
    """
    for other in checkpoints.names():
        if other != wanted and complete_checkpoints(checkpoints / other):
            _, workers, _, stage = other.split("_")
            raise InputError(
                f"training.num_workers, training.deepspeed.zero_stage: the interrupted training had {workers} workers "
                f"and ZeRO stage {stage}; continue with these, or remove {checkpoints} to start it again"
            )
    run = checkpoints / wanted
    complete = complete_checkpoints(run)
    if not complete:
        run.clear()
    for name in run.names():
        if name.startswith("checkpoint_") and name != "checkpoint_manager_snapshot.json" and name not in complete:
            (run / name).clear()
