"""The ladder: how deep a method reaches into a model, least invasive first, and what to say when a rung suffices.

A method points to its rung; whoever judges or reports reads the rung off the record. Depths leave room in between, so a
method of your own can stand on a rung of its own: ``Rung(4.5, "gate", "other", "A gate …")``.
"""

from __future__ import annotations

from typing import Final

from elicitable.values import Rung

ALREADY_THERE: Final = Rung(
    0.0,
    "already-there",
    "nothing",
    "{model} already does {task}; nothing has to be added.",
    (
        "Use the model as it is.",
        "To look for a smaller gain than the margin, race again with more test items and a narrower margin.",
    ),
)
PROMPT: Final = Rung(
    1.0,
    "prompt",
    "context",
    "A plain prompt elicits {task} from {model}; nothing has to be trained.",
    (
        "Put the prompt before every request. It works with every model server and can be read and edited.",
        "Keep the winning text with its score: a new model version deserves a new race.",
    ),
)
EXAMPLES: Final = Rung(
    2.0,
    "examples",
    "context",
    "A few worked examples elicit {task} from {model}; nothing has to be trained.",
    (
        "Put the examples before every request. They work with every model server.",
        "They cost their length in every request; a server that caches prompts pays for them once.",
    ),
)
SOFT_PROMPT: Final = Rung(
    3.0,
    "soft-prompt",
    "context",
    "A trained soft prompt elicits {task} from {model}; the weights can stay as they are.",
    (
        "Keep the base model and put the soft prompt before each request; one model can serve many tasks.",
        "Check first that your server accepts input embeddings: many do not.",
    ),
)
PREFIX: Final = Rung(
    4.0,
    "prefix",
    "context",
    "A trained prefix elicits {task} from {model}; the weights can stay as they are.",
    (
        "Keep the base model and put the prefix before each request; one batch can even mix tasks.",
        "Check first that your server can load a prefix: few can, and a prefix cannot be merged into the weights. "
        "If yours cannot, take the cheapest weight method of the race.",
    ),
)
STEERING: Final = Rung(
    5.0,
    "steering",
    "other",
    "No context that was tried elicits {task} from {model}; a constant vector in one layer does, with all weights as "
    "they are.",
    (
        "Add the vector behind its layer in every request; it costs no keys.",
        "Check first that your server lets you add to a layer's output: few do. If yours does not, take the cheapest "
        "weight method of the race.",
    ),
)
WEIGHTS: Final = Rung(
    6.0,
    "weights",
    "weights",
    "No context that was tried elicits {task} from {model}; changing the weights does.",
    (
        "Train the weights. LoRA can be merged afterwards and then costs nothing at inference.",
        "Look at the side effects before shipping: changed weights also change what the model does elsewhere.",
    ),
)
BOTH: Final = Rung(
    7.0,
    "weights-and-context",
    "weights",
    "Neither a context nor a change of the weights alone elicits {task} from {model}; both together do.",
    (
        "Train the weights with the context before every text, and keep both: neither does it without the other.",
        "Every request pays for the context and the weights have side effects: see first whether longer training does "
        "without one of the two.",
    ),
)
CONTROL: Final = Rung(99.0, "control", "control")
