"""Questions -> responses: a Ray Data actor pool of backends (actor.py).

Every backend has the questions of many tasks in flight at once. A task writes each question to storage within a second
of its last response and hands on only numbers. So what is finished is durable whatever fails next (journal.py), and
only what was in flight is asked again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import Config, EnginePoolConfig
from east_ray.config.devices import cpus
from east_ray.ray_cluster import most_cores
from east_ray.records import SAMPLES
from east_ray.sampling import backends
from east_ray.sampling.actor import PoolSettings, Sampler
from east_ray.sampling.adaptive import local_rule
from east_ray.sampling.backends import Decoding
from east_ray.sampling.deciding import Adaptive
from east_ray.sampling.journal import sample_keys
from east_ray.sampling.watch import PoolStatus, make_board, shown
from east_ray.storage import Folder, resolve_model

#: Responses that a backend holds over those that it computes at once. A task lasts as long as its longest response, so
#: by Little's law the engine stays full if this is above longest over mean length.
_FILLS = 8

#: The tasks of a run are no larger than leaves so many to each engine.
_TASKS_OF_AN_ENGINE = 8

#: Questions that are Python objects at the same time, where there may be millions.
_ROWS_AT_ONCE = 4096

#: What these settings are where they change no response. They are then no part of a key, so that a run that was begun
#: without them goes on. The model's fingerprint says whether it has a chat template.
_LATER: Mapping[str, Sequence[Any]] = {"stop": ([],), "params": ({},), "style": ("auto", "chat"), "examples": (None,)}


def pool_settings(
    config: Config,
    decoding: Decoding,
    *,
    keep_token_ids: bool = False,
    evaluated: str | None = None,
    adaptive: Adaptive | None = None,
) -> PoolSettings:
    """The settings of a pool from those of a run: of `sampling.backend`, or of the endpoint of an evaluated model.

    Raises InputError if the backend cannot be loaded.
    """
    engines, sampling = config.engines, config.sampling
    endpoint = engines.endpoint if evaluated is None else config.evaluation.endpoints[evaluated]
    if endpoint is not None:
        where = "engines.endpoint" if evaluated is None else f"evaluation.endpoints.{evaluated}"
        if endpoint.tokenizer is not None:
            endpoint = endpoint.model_copy(update={"tokenizer": resolve_model(endpoint.tokenizer)})
        engines = engines.of_endpoint(endpoint)
        sampling = sampling.model_copy(update={"backend": "endpoint", "backend_args": {}})
    backend = backends.load(sampling)
    args = backend.checked_args(sampling.backend_args)
    if endpoint is not None:
        is_served = evaluated is not None
        args = backends.endpoint_args(endpoint, where, config.prompt, decoding, is_served=is_served)
    return PoolSettings(backend, args, engines, config.prompt, decoding, keep_token_ids, adaptive)


def requests(questions: pa.Table, models: Mapping[str, str], settings: PoolSettings) -> pa.Table:
    """What is to be asked: every question of every model (name -> path), with the key of its samples."""
    told = settings.decoding.told() | settings.prompt.model_dump()
    told = {name: value for name, value in told.items() if name not in _LATER or value not in _LATER[name]}
    if settings.adaptive is not None:  # the rule decides how many responses the row of a key has when it is finished
        told["adaptive"] = settings.adaptive.settings.model_dump(exclude_none=True)
    batches = questions.select(["question_id", "question"]).to_batches(max_chunksize=_ROWS_AT_ONCE)
    tables = []
    for name, path in models.items():
        identity = settings.backend.identity(path, settings.args)
        keys = [pa.array(sample_keys(name, identity, told, batch.to_pylist()), pa.string()) for batch in batches]
        table = questions.append_column(SAMPLES.field("model"), pa.repeat(name, questions.num_rows))
        tables.append(table.append_column(SAMPLES.field("key"), pa.chunked_array(keys, pa.string())))
    return pa.concat_tables(tables)


def questions_per_task(engines: EnginePoolConfig, num_responses: int, at_once: int, num_questions: int) -> int:
    """How many questions a task has: many in a large run, since each task costs files, requests and the driver's time.

    Never more than a quarter of what an engine is handed at a time, so that its engine stays full, and so few that each
    engine gets eight tasks or more.

    >>> [questions_per_task(EnginePoolConfig(max_engines=64), 8, 256, count) for count in (100, 10_000, 1_000_000)]
    [8, 19, 64]
    """
    most, share = _FILLS * at_once // (4 * num_responses), num_questions // (_TASKS_OF_AN_ENGINE * engines.max_engines)
    return max(engines.questions_per_task, at_once // (4 * num_responses), min(most, share))


def sample(
    asked: pa.Table,
    models: Mapping[str, str],
    folder: Folder,
    set_aside: Folder,
    settings: PoolSettings,
    show: Callable[[PoolStatus], None] = lambda status: None,
) -> Iterator[dict[str, int]]:
    """Ask `requests` and write the rows (records.SAMPLES) as parts of `folder`; `journal.tidy` then brings it to rest.

    Those of an adaptive run come from `standing.unfinished`, which says what each question has already. Questions that
    the backend refuses or dies of go to `set_aside`. Yields the numbers of each task as it becomes durable:
    num_questions, num_set_aside, and the num_responses and num_tokens that have joined. `show` gets the status of the
    pool every second, from another thread, and once more at the end. The models (name -> path) are one of the backend's
    groups, so that one pool serves them. Raises what a backend raises that cannot start.
    """
    import ray.data

    engines, num_responses = settings.engines, _responses_per_request(asked, settings)
    at_once = settings.backend.responses_at_once(engines, num_responses)
    per_task = questions_per_task(engines, num_responses, at_once, asked.num_rows)
    tasks_per_engine = max(2, -(-_FILLS * at_once // (per_task * num_responses)))
    blocks = [asked.slice(begin, per_task) for begin in range(0, asked.num_rows, per_task)]
    if not blocks:
        return
    num_cpus = cpus(engines, most_cores(engines.resources))
    environment = settings.backend.environment(engines.model_copy(update={"num_cpus_per_engine": num_cpus}))
    pool = ray.data.ActorPoolStrategy(
        min_size=engines.min_engines,
        max_size=min(engines.max_engines, max(engines.min_engines, len(blocks))),
        max_tasks_in_flight_per_actor=tasks_per_engine,
        max_concurrent_calls_per_actor=tasks_per_engine,
        enable_true_multi_threading=True,
    )
    board = make_board(engines.min_engines)
    results = ray.data.from_arrow(blocks).map_batches(
        Sampler,
        batch_size=per_task,
        batch_format="pyarrow",
        fn_constructor_args=(dict(models), settings, folder, set_aside, board),
        compute=pool,
        num_cpus=num_cpus,
        num_gpus=engines.num_gpus_per_engine or None,
        resources=engines.resources or None,
        runtime_env={"env_vars": {**environment, **engines.env}},
    )
    with shown(board, show):
        yield from results.iter_rows()


def _responses_per_request(asked: pa.Table, settings: PoolSettings) -> int:
    """How many responses a question is asked for at first, on average; a task is as large as the engine needs then."""
    most = settings.decoding.responses_per_question
    if "num_wanted" in asked.column_names and asked.num_rows:
        mean = float(pc.mean(pc.subtract(asked["num_wanted"], asked["num_had"])).as_py())
        return max(1, int(mean))
    rule = settings.adaptive and local_rule(settings.adaptive.settings, most)
    return min(most, rule.first) if rule else most
