"""What is asked of lm-evaluation-harness itself: a task by name or file, from disk, and its metrics of answers."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from elicitable.errors import InputError, MissingPackageError, UnknownNameError
from elicitable.own_code import tell_that_it_runs
from elicitable.tasks.base import Kind
from elicitable.untrusted import is_out_of_memory

PREFIX: Final = "lm-eval:"
KINDS: Final[dict[str, Kind]] = {
    "multiple_choice": "classification",
    "generate_until": "generation",
    "loglikelihood": "generation",
}


def loaded(spec: str) -> Any:
    """Return the harness's task object, read from what is on disk.

    A file of a person's own runs the functions that it names, which is said on standard error before it happens.

    Raises:
        MissingPackageError: the harness is not installed.
        InputError: the data are not on disk, or the harness cannot read the task.
        UnknownNameError: there is no such task.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{PREFIX}{spec} needs lm-evaluation-harness, which is not installed; run: "
            "pip install 'elicitable[lm-eval]'"
        ) from error
    is_file = Path(spec).suffix in (".yaml", ".yml")
    if is_file and not os.path.isfile(spec):
        raise InputError(f"{PREFIX}{spec}: there is no such file")
    manager = TaskManager(include_defaults=not is_file)
    if is_file:
        tell_that_it_runs(spec)
    else:
        _check_name(spec, manager)
    try:
        with _offline():
            loaded = manager.load([str(Path(spec).resolve()) if is_file else spec])["tasks"]
    except OSError as error:
        raise InputError(
            f"{PREFIX}{spec}: its data are not on disk ({error}). Nothing is fetched: load them once with datasets "
            "on a machine with a network, or write a task.yaml whose data_files are yours."
        ) from error
    except Exception as error:  # a task is a program, which raises whatever it likes
        if is_out_of_memory(error):
            raise
        raise InputError(f"{PREFIX}{spec}: lm-eval cannot read it: {type(error).__name__}: {error}") from error
    if len(loaded) != 1:
        raise InputError(f"{PREFIX}{spec} is a group of {len(loaded)} tasks; name one: {', '.join(list(loaded)[:5])}")
    return next(iter(loaded.values()))


def _check_name(spec: str, manager: Any) -> None:
    if spec in manager.all_groups or spec in manager.all_tags:
        members = [name for name in manager.all_subtasks if name.startswith(spec)][:5]
        raise InputError(f"{PREFIX}{spec} is a group of tasks; name one of them, for instance {', '.join(members)}")
    if spec not in manager.all_subtasks:
        raise UnknownNameError("lm-eval task", spec, manager.all_subtasks, "Or name a file: lm-eval:my_task.yaml.")


@contextmanager
def _offline() -> Iterator[None]:
    """Inside, data sets are read from disk or not at all, and without a progress bar."""
    import datasets
    from huggingface_hub import constants

    places = [(datasets.config, "HF_HUB_OFFLINE"), (constants, "HF_HUB_OFFLINE")]
    before = [getattr(where, name) for where, name in places]
    showed = not datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        for where, name in places:
            setattr(where, name, True)
        yield
    finally:
        for (where, name), value in zip(places, before, strict=True):
            setattr(where, name, value)
        if showed:
            datasets.enable_progress_bars()


def kind_of(name: str, harness: Any, turns: bool) -> Kind:
    """Say what kind of task it is here; raises :class:`InputError` that names what is not supported."""
    from lm_eval.api.task import ConfigurableTask

    refused: list[tuple[bool, str]] = [
        (not isinstance(harness, ConfigurableTask), "a task that is a Python class"),
        (harness.OUTPUT_TYPE not in KINDS, f"the output type {harness.OUTPUT_TYPE}"),
        (bool(getattr(harness, "MULTIMODAL", False)), "images or sounds"),
        (bool(getattr(harness, "UNSAFE_CODE", False)), "running code that the model writes"),
        (bool(getattr(harness, "multiple_input", 0)), "choices that stand inside the prompt (doc_to_text is a number)"),
        (
            KINDS.get(harness.OUTPUT_TYPE) == "classification" and harness.config.doc_to_choice is None,
            "choices that its settings do not give (doc_to_choice is missing)",
        ),
        (turns and bool(harness.config.gen_prefix), "turns where the answer's beginning is given (gen_prefix)"),
        (turns and harness.OUTPUT_TYPE == "loglikelihood", "turns that are continued (output type loglikelihood)"),
    ]
    for is_so, what in refused:
        if is_so:
            known = ", ".join(KINDS)
            raise InputError(f"{name} needs {what}, which elicitable does not support; it takes {known}.")
    return KINDS[harness.OUTPUT_TYPE]


def files_of(harness: Any) -> list[str]:
    """Return the SHA-256 (hex) of each file that holds functions of the task's own, in the order of their paths."""
    paths = {path for one in _functions(harness.config.to_dict(keep_callable=True)) if (path := _file(one))}
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in sorted(paths)]


def _functions(part: Any) -> Iterator[Any]:
    if isinstance(part, Mapping):
        part = list(part.values())
    if isinstance(part, list | tuple):
        for inner in part:
            yield from _functions(inner)
    elif callable(part):
        yield part


def _file(function: Any) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(getattr(function, "func", function)))
    except TypeError:  # what is built in, or an object that is called
        return None


def aggregation_of(harness: Any, metric: str) -> str:
    """Return the name under which the harness knows the aggregation of a metric; of a person's own the function's."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    function = harness.aggregation()[metric]
    known = {name: AGGREGATION_REGISTRY[name] for name in AGGREGATION_REGISTRY}
    return next((name for name, one in known.items() if one is function), getattr(function, "__name__", "its own"))


def judged(harness: Any, docs: Sequence[Any], answers: Sequence[str]) -> list[dict[str, float]]:
    """Return the harness's own metrics of free answers, by "metric,filter"."""
    from lm_eval.api.instance import Instance

    harness._instances = [
        Instance("generate_until", doc, ("", {}), 0, (harness.config.task, place, 1), resps=[answer])
        for place, (doc, answer) in enumerate(zip(docs, answers, strict=True))
    ]
    harness.apply_filters()
    found: list[dict[str, float]] = []
    for doc, asked in zip(docs, harness.instances, strict=True):
        own = {key: harness.process_results(doc, [asked.filtered_resps[key]]) for key in asked.filtered_resps}
        found.append({f"{name},{key}": value for key, values in own.items() for name, value in values.items()})
    return found
