"""``elicitable compile``: a context turned into weights, or into fewer keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elicitable.cli import importing
from elicitable.cli.inspect import artefact_of, base_of, context_of
from elicitable.cli.options import Json, ModelOptions, Out, Quiet, ReadOptions, ScoreName, Seed
from elicitable.cli.output import default_folder, digest_of, output, print_json, result_console, say, status
from elicitable.errors import InputError

if TYPE_CHECKING:
    from elicitable.deploy.artefact import Artefact
    from elicitable.models.layout import Layout
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


def compile_command(
    about: ModelOptions,
    read: ReadOptions,
    context: Annotated[
        Path | None, typer.Argument(help="a run or an adapter folder (PEFT's too); or give --prompt or --examples")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="the text of a prompt, or token ids such as '3 1 2'")] = None,
    to: Annotated[
        str, typer.Option("--to", help="lora (any server takes it), weights (a whole model) or short-prefix (few keys)")
    ] = "lora",
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="whose training prompts are the texts, and whose test is scored")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="unlabelled texts of the kind that is asked, one a line")] = None,
    examples: Annotated[int | None, typer.Option(help="worked examples of --task as the context")] = None,
    rank: Annotated[int | None, typer.Option(help="of the LoRA [default: 32]")] = None,
    keys: Annotated[int | None, typer.Option(help="of the short prefix, a head [default: 16]")] = None,
    steps: Annotated[int, typer.Option(help="of distillation after the closed form; 0 trains nothing")] = 200,
    items: Annotated[int | None, typer.Option(min=1, help="training prompts of --task [default: 140]")] = None,
    test_items: Annotated[int | None, typer.Option(min=1, help="test items that are scored [default: 240]")] = None,
    other_task: Annotated[
        list[str] | None, typer.Option(help="a task on which to measure what the result does there; may be repeated")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="longer texts are cut")] = None,
    score: ScoreName = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a context into a LoRA, changed weights or a short prefix that does the same, and say what is lost."""
    with importing():
        from elicitable.compiling.compile import Recipe, compile_context
        from elicitable.compiling.report import compiled_table, write_compiled
        from elicitable.race.standard import Standard
        from elicitable.report.table import print_wrapped

    sizes: dict[str, Any] = {name: size for name, size in (("rank", rank), ("keys", keys)) if size is not None}
    how = Recipe(to=to, **sizes, steps=steps, seed=seed)
    counts: dict[str, Any] = {"texts_of_task": items, "test_items": test_items}
    counts = {name: count for name, count in counts.items() if count is not None}
    asked = (counts, other_task, score, about, *read.given().items())
    what = digest_of(how, context, prompt, examples, texts, max_tokens, *asked)
    folder = out or default_folder(f"compile-{to}", about.model, task or "texts", what)
    _check_free(folder)
    lines = None if texts is None else _lines(texts)
    _check_used(task, texts, other_task, items, test_items, score)
    _check_sizes(to, sizes)
    artefact = _artefact(context, prompt, task, examples)
    with output(folder), status("loading …", quiet) as shown:
        wanted = _task(task, read)
        record = None if artefact is None else artefact.record
        model = about.load("float32", base_of(artefact))
        layout = _layout(model, artefact, wanted)
        marks = None if wanted is None else Standard.of(model, wanted, record, score).outcome
        found = compile_context(
            model,
            _context(model, artefact, prompt, wanted, examples, layout, seed),
            lines,
            task=wanted,
            other_tasks=other_task or (),
            max_tokens=max_tokens,
            layout=layout,
            marks=marks,
            told=(lambda line: None) if shown is None else shown.update,
            **counts,
            **vars(how),
        )
        write_compiled(model, found, folder)
    if as_json:
        print_json(found.record | {"out": str(folder)})
        return
    print_wrapped(compiled_table(found.record).splitlines(), result_console())
    say(f"Written to {folder}.")


def _check_free(folder: Path) -> None:
    """Raise InputError where a folder holds what was not compiled, which would go on speaking for what is."""
    from elicitable.compiling.report import LAST, RECORD
    from elicitable.deploy.artefact import ARTEFACT, WINNER

    others = LAST if not (folder / RECORD).is_file() else ()
    taken = next((name for name in (ARTEFACT, f"{WINNER}/{ARTEFACT}", *others) if (folder / name).is_file()), None)
    if taken is not None:
        raise InputError(f"{folder} holds something that was not compiled ({taken}); choose another --out.")


def _check_used(
    task: str | None,
    texts: Path | None,
    other_task: list[str] | None,
    items: int | None,
    test_items: int | None,
    score: str | None,
) -> None:
    """Raise InputError where an option is given that nothing would read."""
    if texts is not None and items is not None:
        raise InputError(
            "--items counts training prompts of --task, and all texts of --texts are taken: leave one out."
        )
    if task is None and score is not None:
        raise InputError("--score says how the test split of --task is scored: give --task.")
    if task is None and not other_task and test_items is not None:
        raise InputError("--test-items counts items of --task and --other-task: give one of them.")


def _check_sizes(to: str, sizes: Mapping[str, Any]) -> None:
    """Raise InputError where a size is given of what is not made."""
    for name, made in (("rank", "lora"), ("keys", "short-prefix")):
        if name in sizes and to != made:
            raise InputError(f"--{name} is the size of --to {made}, and --to is {to} here: leave it out.")


def _artefact(context: Path | None, prompt: str | None, task: str | None, examples: int | None) -> Artefact | None:
    """Read the folder of the context, where it is one.

    Raises:
        InputError: there is no one context, or its folder cannot be read.
    """
    if sum(given is not None for given in (context, prompt, examples)) != 1:
        raise InputError("give one of: a folder CONTEXT, --prompt TEXT, or --examples N with --task.")
    if examples is None:
        return artefact_of(context, prompt)
    if task is None:
        raise InputError("--examples are drawn from a task: give --task.")
    return None


def _task(task: str | None, read: ReadOptions) -> Task | None:
    """Read the task, where there is one.

    Raises:
        InputError: it cannot be read, or is said to be read somehow and is not there.
    """
    from elicitable.tasks.catalog import task_from

    if task is not None:
        return task_from(task, **read.given())
    for name in read.given():
        raise InputError(f"--{name.replace('_', '-')} says how a task is read: give --task.")
    return None


def _layout(model: Model, artefact: Artefact | None, task: Task | None) -> Layout:
    """Return how items are read: as the record of the context's artefact says, where there is one."""
    from elicitable.training.batches import layout_without_record

    if artefact is not None and artefact.record is not None:
        return artefact.record.layout.layout()
    return layout_without_record(model, task)


def _context(
    model: Model,
    artefact: Artefact | None,
    prompt: str | None,
    task: Task | None,
    examples: int | None,
    layout: Layout,
    seed: int,
) -> Any:
    if examples is None:
        return context_of(model, artefact, prompt, layout)
    from elicitable.methods.catalog import context as make
    from elicitable.methods.examples import Examples

    return make(Examples(), model, task=task, k=examples, seed=seed, layout=layout)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file with one text a line: {error}.") from error
    found = [line for line in lines if line.strip()]
    if not found:
        raise InputError(f"{path} has no texts: one a line is expected.")
    return found
