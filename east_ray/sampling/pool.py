"""Questions -> responses: a Ray Data actor pool of backends.

Every backend has the questions of many tasks in flight at once. A task writes each question to storage within a second
of its last response and hands on only numbers. So what is finished is durable whatever fails next (journal.py), and
only what was in flight is asked again.

Axes in names: Q questions, R responses.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from east_ray.config import Config
from east_ray.records import SAMPLES
from east_ray.sampling import backends
from east_ray.sampling.actor import PoolSettings, Sampler
from east_ray.sampling.decoding import Decoding
from east_ray.sampling.journal import sample_key
from east_ray.storage import Folder

#: Responses that a backend holds, running, waiting or finished, over those that it computes at once. A task lasts as
#: long as its longest response, so by Little's law the engine stays full if this is above longest over mean length.
_FILLS = 8


def pool_settings(config: Config, decoding: Decoding) -> PoolSettings:
    """The settings of a pool from those of a run. Raises InputError if the backend cannot be loaded."""
    backend = backends.load(config.sampling)
    args = backend.checked_args(config.sampling.backend_args)
    return PoolSettings(backend, args, config.engines, config.prompt, decoding)


def requests(questions: pa.Table, models: Mapping[str, str], settings: PoolSettings) -> pa.Table:
    """What is to be asked: every question of every model (name -> path), with the key of its samples."""
    told = asdict(settings.decoding) | settings.prompt.model_dump()
    rows = questions.select(["question_id", "question"]).to_pylist()
    tables = []
    for name, path in models.items():
        identity = settings.backend.identity(path, settings.args)
        keys = [sample_key(name, identity, told, row) for row in rows]
        table = questions.append_column(SAMPLES.field("model"), pa.array([name] * len(keys), pa.string()))
        tables.append(table.append_column(SAMPLES.field("key"), pa.array(keys, pa.string())))
    return pa.concat_tables(tables)


def sample(
    asked: pa.Table, models: Mapping[str, str], folder: Folder, set_aside: Folder, settings: PoolSettings
) -> Iterator[dict[str, int]]:
    """Ask `requests` and write the rows (records.SAMPLES) as parts of `folder`; `journal.tidy` then brings it to rest.

    Questions that the backend refuses or dies of go to `set_aside`. Yields the numbers of each task as it becomes
    durable: num_questions, num_set_aside, num_responses, num_tokens. The models (name -> path) are one of the backend's
    groups, so that one pool serves them. Raises what a backend raises that cannot start.
    """
    import ray.data

    engines, num_responses = settings.engines, settings.decoding.responses_per_question
    at_once = settings.backend.responses_at_once(engines)
    per_task = max(engines.questions_per_task, at_once // (4 * num_responses))
    tasks_per_engine = max(2, -(-_FILLS * at_once // (per_task * num_responses)))
    blocks = [asked.slice(begin, per_task) for begin in range(0, asked.num_rows, per_task)]
    if not blocks:
        return
    pool: dict[str, Any] = {
        "compute": ray.data.ActorPoolStrategy(
            min_size=engines.min_engines,
            max_size=min(engines.max_engines, max(engines.min_engines, len(blocks))),
            max_tasks_in_flight_per_actor=tasks_per_engine,
            max_concurrent_calls_per_actor=tasks_per_engine,
            enable_true_multi_threading=True,
        ),
        "num_cpus": engines.num_cpus_per_engine,
        "num_gpus": engines.num_gpus_per_engine or None,
        "resources": engines.resources or None,
        "runtime_env": {"env_vars": {**settings.backend.environment, **engines.env}},
    }
    results = ray.data.from_arrow(blocks).map_batches(
        Sampler,
        batch_size=per_task,
        batch_format="pyarrow",
        fn_constructor_args=(dict(models), settings, folder, set_aside),
        **pool,
    )
    yield from results.iter_rows()
