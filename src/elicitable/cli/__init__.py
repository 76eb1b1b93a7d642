"""The command line. Nothing heavy is imported before a command runs, so that help answers at once."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from elicitable import __version__
from elicitable.errors import ElicitableError, InputError

if TYPE_CHECKING:
    from rich.console import Console

STARTED = time.monotonic()


class _Interrupted(Exception):
    """Ctrl-C. Typer would exit before :func:`main` can say that the same command resumes."""


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; Ctrl-C leaves it as an exception that typer does not know."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _Interrupted from stop


app = typer.Typer(
    cls=_Group,
    help="Can it be elicited by context, or must the weights change?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelName = Annotated[
    str, typer.Option("--model", "-m", help="toy:mixed, toy:ascending, smollm2, a folder, a .gguf file or a hub id")
]
TaskName = Annotated[
    str, typer.Option("--task", "-t", help="a task by name, a CSV, TSV or JSONL file, or hub:owner/name")
]
Json = Annotated[
    bool, typer.Option("--json", help="print one JSON object on standard output, progress on standard error")
]
Out = Annotated[Path | None, typer.Option("--out", help="output folder; the same arguments resume there")]
Seed = Annotated[int, typer.Option("--seed", help="of everything that is drawn")]
NoSeed = Annotated[int, typer.Option("--seed", help="taken as everywhere; nothing is drawn here")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="column of the text (files, hub data)")]
LabelColumn = Annotated[str | None, typer.Option("--label-column", help="column of the label")]
PromptColumn = Annotated[str | None, typer.Option("--prompt-column", help="column of the prompt (generation)")]
TargetColumn = Annotated[str | None, typer.Option("--target-column", help="column of the target (generation)")]
Validation = Annotated[str | None, typer.Option("--validation", help="a file of its own for the validation split")]
Test = Annotated[str | None, typer.Option("--test", help="a file of its own for the test split")]
Template = Annotated[str | None, typer.Option("--template", help="how a text is shown, with {text} in it")]
MaxWords = Annotated[int | None, typer.Option("--max-words", help="cut texts at so many words; 0 never cuts")]


def main() -> NoReturn:
    """Run the command line: bad input is one line on standard error and exit code 2, never a traceback."""
    try:
        app(standalone_mode=True)
    except ElicitableError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except _Interrupted:
        print("interrupted: what is finished is kept; the same command resumes.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    sys.exit(0)


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"elicitable {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Can it be elicited by context, or must the weights change?"""


@app.command()
def verdict(
    model: ModelName,
    task: TaskName,
    budget: Annotated[
        int | None, typer.Option(help="numbers trained; default 12 x layers x d_model (toy:ascending: 2 x)")
    ] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="only these methods (may be repeated)")] = None,
    seeds: Annotated[int, typer.Option(help="reruns at the best learning rate")] = 2,
    margin: Annotated[float, typer.Option(help="how much worse still counts as good enough (0.02 is 2 points)")] = 0.02,
    time_limit: Annotated[str | None, typer.Option(help="for everything, e.g. 90s, 30m, 2h; spread evenly")] = None,
    steps: Annotated[int | None, typer.Option(help="at most so many steps a run")] = None,
    test_items: Annotated[int | None, typer.Option(help="how many items of the test split")] = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="a text for the prompt arm to try")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    prompt_column: PromptColumn = None,
    target_column: TargetColumn = None,
    template: Template = None,
    max_words: MaxWords = None,
    validation: Validation = None,
    test: Test = None,
    device: Device = "auto",
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try every method at a matched budget and say whether context is enough or the weights must change."""
    limit = seconds(time_limit)
    asked = _task_options(text_column, label_column, prompt_column, target_column, template, max_words)
    asked |= _own_splits(validation, test)
    folder = out or default_folder("verdict", model, task)
    console = _progress_console()
    if not quiet:
        console.print(f"loading {model} …", highlight=False, markup=False)
    from elicitable.models.load import load
    from elicitable.race import contest
    from elicitable.report.html import write_report
    from elicitable.report.microscope import microscope_section
    from elicitable.report.progress import LiveReporter
    from elicitable.report.table import print_verdict
    from elicitable.report.verdict_json import verdict_to_json
    from elicitable.tasks.catalog import task_from

    wanted = task_from(task, **asked)
    loaded = load(model, device=device)
    if not quiet:
        _say_warnings(wanted, console)
    with _output(folder), LiveReporter(console, limit) as live:
        answer = contest.verdict(
            loaded,
            wanted,
            budget=budget,
            methods=method,
            seeds=seeds,
            seed=seed,
            margin=margin,
            time_limit=limit,
            steps=steps,
            test_items=test_items,
            prompts=prompt or (),
            out=folder,
            started=STARTED,
            reporter=None if quiet else live,
        )
    answer = replace(answer, provenance={**answer.provenance, "command": _command()})
    _write_json(folder / "verdict.json", verdict_to_json(answer))
    sections = [microscope_section(answer.inspection)] if answer.inspection else []
    report = write_report(answer, folder / "report.html", sections)
    if as_json:
        _print_json(verdict_to_json(answer))
    else:
        print_verdict(answer, _result_console(), report)


@app.command()
def tune(
    model: ModelName,
    task: TaskName,
    method: Annotated[
        str, typer.Option("--method", help="soft-prompt, layer-prefix, kv-prefix, value-bias, lora, full")
    ],
    budget: Annotated[
        int | None, typer.Option(help="numbers trained; default 12 x layers x d_model (toy:ascending: 2 x)")
    ] = None,
    size: Annotated[int | None, typer.Option(help="virtual tokens or rank, instead of a budget")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="default: swept")] = None,
    steps: Annotated[int | None, typer.Option(help="at most so many steps")] = None,
    init: Annotated[str | None, typer.Option(help="random, vocabulary, text or sink")] = None,
    init_text: Annotated[str | None, typer.Option(help="the text of --init text")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    prompt_column: PromptColumn = None,
    target_column: TargetColumn = None,
    template: Template = None,
    max_words: MaxWords = None,
    validation: Validation = None,
    test: Test = None,
    device: Device = "auto",
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one method and write an adapter folder that PEFT loads."""
    from elicitable.models.load import load
    from elicitable.race.tune import tune as run_tune
    from elicitable.report.progress import LiveReporter
    from elicitable.tasks.catalog import task_from

    asked = _task_options(text_column, label_column, prompt_column, target_column, template, max_words)
    asked |= _own_splits(validation, test)
    folder = out or default_folder(f"tune-{method}", model, task)
    wanted, console = task_from(task, **asked), _progress_console()
    with _output(folder), LiveReporter(console) as live:
        tuned = run_tune(
            load(model, device=device),
            wanted,
            method=method,
            budget=budget,
            size=size,
            learning_rate=learning_rate,
            steps=steps,
            init=init,
            text=init_text,
            seed=seed,
            out=folder,
            reporter=None if quiet else live,
        )
    if as_json:
        _print_json(tuned.record)
    else:
        shown = tuned.record
        _result_console().print(
            f"{method} on {task}: {shown['mean']:.3f} [{shown['low']:.3f}, {shown['high']:.3f}] on {shown['items']:,} "
            f"test items; {shown['numbers_trained']:,} numbers trained at {shown['learning_rate']:g}.\n"
            f"adapter: {folder}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@app.command()
def pretrain(
    toy: Annotated[str, typer.Argument(help="ascending or mixed")],
    steps: Annotated[int | None, typer.Option(help="default: as the shipped checkpoint")] = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a toy transformer from fresh weights, as the shipped checkpoints were."""
    from elicitable.lab.pretrain import pretrain as run_pretrain
    from elicitable.report.progress import LiveReporter

    folder, console = out or Path("elicitable-runs") / "pretrain", _progress_console()
    with LiveReporter(console) as live:
        live.begin(toy, f"pretraining, seed {seed}", 0, 1)
        record = run_pretrain(toy, folder, seed=seed, steps=steps, progress=None if quiet else live.point)
    if as_json:
        _print_json(record)
    else:
        scores = ", ".join(f"{task} {score:.3f}" for task, score in record["test_scores"].items())
        _result_console().print(f"{folder / toy}.safetensors: {scores}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def inspect(
    model: ModelName,
    context: Annotated[str, typer.Option("--context", "-c", help="a text, or an adapter folder (tune's or PEFT's)")],
    task: Annotated[str, typer.Option("--task", "-t", help="whose test texts to look at")],
    texts: Annotated[int, typer.Option(help="how many texts")] = 64,
    max_tokens: Annotated[int, typer.Option(help="tokens a text at most")] = 256,
    heatmap: Annotated[str | None, typer.Option(help="layer,head whose attention is drawn for the first text")] = None,
    dtype: Annotated[str | None, typer.Option(help="float64, float32, bfloat16 or float16")] = None,
    ablate: Annotated[
        int, typer.Option(min=0, help="validation items to measure on what the score loses without each part")
    ] = 0,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    device: Device = "auto",
    seed: NoSeed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a context does inside a model, layer by layer and head by head."""
    from elicitable.microscope.inspect import inspect as look
    from elicitable.models.load import load
    from elicitable.race.inside import leave_out, prefix_to_cut
    from elicitable.records.store import Store
    from elicitable.report.html import write_page
    from elicitable.report.microscope import (
        ablation_table,
        inspection_table,
        inspection_to_json,
        microscope_section,
        write_figures,
    )
    from elicitable.tasks.catalog import task_from

    folder = out or default_folder("inspect", model, task)
    Store(folder)
    wanted = task_from(task, **_task_options(text_column, label_column, None, None, None, None))
    loaded = load(model, device=device, dtype=dtype)
    items = wanted.held_out("test", texts)
    parts = context_of(loaded, context)
    prefix = prefix_to_cut(loaded, parts) if ablate else None
    with _progress_console().status(f"inspecting {len(items)} texts …") if not quiet else nullcontext() as status:
        found = look(loaded, parts, items, max_tokens=max_tokens, heatmap=_layer_and_head(heatmap))
        if prefix is not None:

            def told(done: int, whole: int) -> None:
                if status is not None:
                    status.update(f"leaving out one part after another: {done} of {whole} measured …")

            lost = leave_out(loaded, prefix, wanted, ablate, found, max_tokens, told)
            found = replace(found, ablations=lost)
    record = inspection_to_json(found)
    _write_json(folder / "inspection.json", record)
    write_figures(found, folder / "figures")
    report = write_page(f"Inside {model}", [microscope_section(found)], folder / "report.html")
    if as_json:
        _print_json(record)
    else:
        _result_console().print(inspection_table(found))
        if found.ablations:
            _result_console().print(ablation_table(found))
        _result_console().print(f"Report: {report}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def prune(
    adapter: Annotated[Path, typer.Argument(help="the folder of a prefix adapter")],
    model: ModelName,
    task: TaskName,
    margin: Annotated[float, typer.Option(help="how much of the score may be lost (0.01 is 1 point)")] = 0.01,
    items: Annotated[int, typer.Option(help="validation items: half to search on, half to confirm")] = 1000,
    steps: Annotated[int, typer.Option(help="to train what is left, if half cannot go without; 0 never trains")] = 1000,
    peft: Annotated[bool, typer.Option("--peft", help="drop whole tokens only, so that PEFT loads the result")] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    device: Device = "auto",
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop the virtual tokens and heads that do nothing and write a smaller adapter."""
    from elicitable.models.load import load
    from elicitable.race.pruning import prune_adapter, pruning_summary
    from elicitable.tasks.catalog import task_from

    wanted = task_from(task, **_task_options(text_column, label_column, None, None, None, None))
    folder = out or adapter.with_name(f"{adapter.name}-pruned")
    with _progress_console().status("pruning …") if not quiet else nullcontext():
        record = prune_adapter(
            load(model, device=device),
            adapter,
            wanted,
            folder,
            margin=margin,
            items=items,
            steps=steps,
            peft=peft,
            seed=seed,
        )
    if as_json:
        _print_json(record)
    else:
        _result_console().print(pruning_summary(record), highlight=False, markup=False, soft_wrap=True)


@app.command()
def construct(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="theorem-1, theorem-2, …, capacity, reach or token-reach; `list` lists")],
    vocab: Annotated[int, typer.Option(help="V, the size of the vocabulary")] = 10,
    length: Annotated[int | None, typer.Option(help="N or n_Y, symbols of the answer")] = None,
    inputs: Annotated[int | None, typer.Option(help="n_X, user tokens")] = None,
    alphabet: Annotated[
        str | None,
        typer.Option(
            help="the characters of the symbols, in order; V is their number [default: those of --map, or printable "
            "ASCII from the space]"
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="the text to encode")] = None,
    mapping: Annotated[Path | None, typer.Option("--map", help="a JSON object: input text to answer text")] = None,
    given: Annotated[str, typer.Option("--input", help="the user input that the answer is generated for")] = "",
    verify: Annotated[
        str | None, typer.Option(help="exhaustive (with --map: that map, on every input), or how many random targets")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float64, float32, bfloat16 or float16")] = "float64",
    temperature: Annotated[float | None, typer.Option(help="the inverse temperature T of the softmax")] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="build sizes that the dtype cannot carry too, to see them fail")
    ] = False,
    model: Annotated[str, typer.Option("--model", "-m", help="for token-reach: a language model")] = "smollm2",
    hard_tokens: Annotated[str, typer.Option(help="for token-reach: how many hard tokens, or all")] = "2000",
    virtual_tokens: Annotated[int, typer.Option(help="for token-reach: how many virtual tokens to train")] = 64,
    targets: Annotated[
        str, typer.Option(help="for token-reach: model (continuations it writes itself) or random (uniform tokens)")
    ] = "model",
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build a theorem as a transformer, run it and verify it."""
    from elicitable.cli import theory

    request = theory.Request(
        name=name,
        vocab=vocab,
        length=length,
        inputs=inputs,
        alphabet=alphabet,
        text=text,
        mapping=mapping,
        given=given,
        verify=verify,
        dtype=dtype,
        temperature=temperature,
        unchecked=unchecked,
        model=model,
        hard_tokens=hard_tokens,
        virtual_tokens=virtual_tokens,
        targets=targets,
        seed=seed,
        out=out,
        asked=frozenset(option for option in ctx.params if _is_typed(ctx, option)),
    )
    record, shown = theory.answer(request, None if quiet else _progress_console())
    if as_json:
        _print_json(record)
    else:
        for part in shown:
            _result_console().print(part, highlight=False, markup=False)
    if record.get("counterexamples"):
        raise typer.Exit(1)


@app.command()
def reproduce(
    name: Annotated[list[str] | None, typer.Argument(help="experiments; default all")] = None,
    preset: Annotated[str, typer.Option(help="quick (one seed) or paper (ten)")] = "quick",
    seeds: Annotated[int | None, typer.Option(help="how many, instead of the preset's")] = None,
    seed: Annotated[int, typer.Option("--seed", help="the first; the others follow it")] = 0,
    executor: Annotated[str, typer.Option(help="local, inline or ray")] = "local",
    workers: Annotated[int | None, typer.Option(help="trials at once")] = None,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster")] = None,
    status: Annotated[bool, typer.Option("--status", help="say what is done and run nothing")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="tables and report of what is done; run nothing")] = False,
    export: Annotated[
        Path | None, typer.Option(help="also write the records there, one JSON lines file an experiment")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="run failed trials again")] = False,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the paper's experiments and put ours beside what the source reports."""
    from elicitable.lab import reproduce as runs
    from elicitable.report.reproduction import reproduction_markdown, write_reproduction

    folder = out or Path("elicitable-runs") / f"reproduce-{preset}"
    which: dict[str, Any] = {"preset": preset, "seeds": seeds, "first_seed": seed, "out": folder}
    if status:
        _print_status(runs.status(name or (), **which), as_json)
        return
    if tables:
        found = runs.tables(name or (), **which)
    else:
        from elicitable.cli.overview import Overview
        from elicitable.lab.executors import cores

        watcher = None if quiet else Overview(_progress_console(), 1 if executor == "inline" else workers or cores())
        more: dict[str, Any] = {"executor": executor, "workers": workers, "address": address, "retry": retry}
        found = runs.reproduce(name or (), **which, **more, watcher=watcher)
    report = write_reproduction(found, folder)
    if export is not None:
        runs.export(name or (), **which, to=export)
    if as_json:
        _print_json(found)
    else:
        typer.echo(reproduction_markdown(found), nl=False)
        typer.echo(f"\nReport: {report}")
    if found.get("trials_failed"):
        raise typer.Exit(1)


def _print_status(lines: list[Any], as_json: bool) -> None:
    if as_json:
        _print_json({"trials": [_plain_line(line) for line in lines]})
        return
    for line in lines:
        note = f" ({line.reason})" if line.reason else ""
        text = f"{line.state:<11} {line.experiment}: {line.job.describe()}{note}"
        _result_console().print(text, highlight=False, markup=False, soft_wrap=True)


def _plain_line(line: Any) -> dict[str, Any]:
    return {
        "experiment": line.experiment,
        "trial": line.job.describe(),
        "state": line.state,
        "steps": line.steps,
        "seconds": line.seconds,
        "reason": line.reason,
    }


@app.command()
def models(
    architectures: Annotated[bool, typer.Option("--architectures", help="which decoders were checked")] = False,
    seed: NoSeed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The models that can be named without a path, or the architectures that were checked."""
    if architectures:
        from elicitable.models.architectures import architecture_rows

        rows = architecture_rows()
        shown = [(row["name"], row["state"], row["reason"] or row["traits"]) for row in rows]
        _print_list("architectures", rows, shown, out, as_json)
        return
    from elicitable.models.load import catalog

    _print_cards("models", [(card.name, card.description, card.source) for card in catalog()], out, as_json)


@app.command()
def tasks(seed: NoSeed = 0, out: Out = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """The built-in tasks."""
    from elicitable.tasks.catalog import catalog

    _print_cards("tasks", [(card.name, card.description, card.kind) for card in catalog().values()], out, as_json)


@app.command()
def methods(seed: NoSeed = 0, out: Out = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """The methods, least invasive first."""
    from elicitable.methods.catalog import METHODS

    _print_cards("methods", [(method.name, method.summary, method.rung.label) for method in METHODS], out, as_json)


def context_of(model: Any, context: str) -> Any:
    """A context from the command line: an adapter folder where there is one, else a prompt's text or token ids."""
    from elicitable.methods.adapter import read_adapter
    from elicitable.methods.catalog import context as make

    path = Path(context)
    if path.is_dir():
        return read_adapter(model, path)
    if context.startswith((".", "/")) or path.suffix == ".safetensors":
        raise InputError(f"no such adapter folder: {context}.")
    if model.tokenizer is not None:
        return make("prompt", model, text=context)
    if not re.fullmatch(r"\s*\d+([\s,]+\d+)*\s*", context):
        raise InputError(f"{model.name} has no tokenizer: give token ids such as '3 1 2', or an adapter folder.")
    return make("prompt", model, token_ids=[int(number) for number in re.findall(r"\d+", context)])


def _layer_and_head(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)[,:](\d+)", text)
    if match is None:
        raise InputError(f"a heat map is named by layer,head (0,3), got {text!r}.")
    return int(match[1]), int(match[2])


def seconds(text: str | None) -> float | None:
    """A duration such as ``90``, ``90s``, ``30m`` or ``1.5h`` in seconds.

    >>> seconds("30m")
    1800.0
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", text.strip())
    if match is None:
        raise InputError(f"a time limit is a number with s, m or h (90s, 30m, 2h), got {text!r}.")
    return float(match[1]) * {None: 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def default_folder(what: str, model: str, task: str) -> Path:
    """Where results go without ``--out``: a folder named after the question."""
    name = "-".join((what, Path(model).stem if Path(model).suffix else model, Path(task).stem))
    return Path("elicitable-runs") / re.sub(r"[^\w.-]+", "-", name)


@contextmanager
def _output(folder: Path) -> Iterator[None]:
    """A folder that can be written to, said before minutes are spent; bad input leaves no new empty folder behind."""
    from elicitable.records.store import Store

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        Store(folder)
        yield
    except ElicitableError:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise


def _task_options(
    text_column: str | None,
    label_column: str | None,
    prompt_column: str | None,
    target_column: str | None,
    template: str | None,
    max_words: int | None,
) -> dict[str, Any]:
    given = {
        "text_column": text_column,
        "label_column": label_column,
        "prompt_column": prompt_column,
        "target_column": target_column,
        "template": template,
        "max_words": max_words,
    }
    return {name: value for name, value in given.items() if value is not None}


def _own_splits(validation: str | None, test: str | None) -> dict[str, str]:
    return {name: file for name, file in (("validation", validation), ("test", test)) if file is not None}


def _say_warnings(task: Any, console: Console) -> None:
    from elicitable.tasks.base import warnings_of

    for warning in warnings_of(task):
        console.print(f"warning: {warning}", highlight=False, markup=False)


def _is_typed(ctx: typer.Context, option: str) -> bool:
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _progress_console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _result_console() -> Console:
    from rich.console import Console

    return Console()


def _command() -> str:
    import shlex

    return shlex.join(["elicitable", *sys.argv[1:]])


def _print_json(record: Any) -> None:
    json.dump(record, sys.stdout, allow_nan=False)
    sys.stdout.write("\n")


def _write_json(path: Path, record: Any) -> None:
    from elicitable.cache import replace_file

    data = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    replace_file(path, data, "Free the place, or choose another --out.")


def _print_cards(what: str, cards: list[tuple[str, str, str]], out: Path | None, as_json: bool) -> None:
    rows = [{"name": name, "description": text, "note": note} for name, text, note in cards]
    _print_list(what, rows, cards, out, as_json)


def _print_list(
    what: str, rows: list[dict[str, str]], shown: list[tuple[str, str, str]], out: Path | None, as_json: bool
) -> None:
    """A list as one JSON object or as a table; with ``--out`` also as a file in that folder."""
    if out is not None:
        _write_json(out / f"{what}.json", {what: rows})
    if as_json:
        _print_json({what: rows})
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for row in shown:
        table.add_row(*row)
    _result_console().print(table, highlight=False, markup=False)


if __name__ == "__main__":
    main()
