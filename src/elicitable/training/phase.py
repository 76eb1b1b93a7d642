"""Know where the schedule of a training is: warm-up, a constant phase that ends by itself, a cosine down to zero."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from elicitable.errors import InputError

if TYPE_CHECKING:
    from elicitable.training.loop import Plan
    from elicitable.values import CurvePoint


class Phase:
    """Know where the schedule is: warm-up, constant, cosine down. It knows steps, time and scores, but no model."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.step = 0
        self.elapsed = 0.0
        self.cooling_from: int | None = None
        self.cooling_steps = 0
        self.cooling_rate = 0.0  # where the cosine starts: below the peak if the warm-up was cut short
        self.reason = ""
        self.best_score, self.best_loss, self.best_step = -1.0, math.inf, 0

    def go_on(self, step: int) -> None:
        """Take up a run of ``step`` steps at the constant rate; where this plan ends it there, cool at once."""
        if self.cooling_from is not None and self.cooling_steps:
            raise InputError("a run that has come down along the cosine cannot go on at the constant rate.")
        self.cooling_from, self.cooling_steps, self.reason, self.step = None, 0, "", step
        if step >= round(self.plan.steps * (1 - self.plan.cooldown)):
            self._cool("steps", self.plan.steps - step)

    def rate(self) -> float:
        """Return the learning rate of the coming step."""
        if self.cooling_from is not None:
            done = (self.step - self.cooling_from) / max(1, self.cooling_steps)
            return self.cooling_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        return self.plan.learning_rate * min(1.0, (self.step + 1) / max(1, self.plan.warmup))

    def advance(self, elapsed: float) -> None:
        """Take note of one step; ``elapsed`` seconds have passed since the start."""
        self.step += 1
        self.elapsed = elapsed
        if self.cooling_from is not None:
            return
        share = self.plan.cooldown
        if self.step >= round(self.plan.steps * (1 - share)):
            self._cool("steps", self.plan.steps - self.step)
        elif self.plan.seconds is not None and elapsed >= self.plan.seconds * (1 - share):
            left = max(0.0, self.plan.seconds - elapsed) / (elapsed / self.step)
            self._cool("time", min(self.plan.steps - self.step, int(left)))

    def observe(self, point: CurvePoint) -> None:
        """Take note of a validation score: solved, improved, or a plateau."""
        score = point.validation or 0.0
        if score >= min(self.plan.solved, self.plan.perfect):
            self._solve(score)
            return
        if score >= self.best_score + 0.01 or point.loss_nats <= 0.95 * self.best_loss:
            self.best_score, self.best_loss = max(score, self.best_score), min(point.loss_nats, self.best_loss)
            self.best_step = self.step
        waited = self.step - self.best_step
        if self.cooling_from is None and waited >= max(self.plan.patience_steps, self.plan.patience * self.step):
            self._cool("plateau", round(self.plan.cooldown * self.step))

    def _solve(self, score: float) -> None:
        """Come down over half as many steps again, which finishes the work; stop if perfect on the way down."""
        if self.cooling_from is None:
            self._cool("solved", min(max(self.plan.finish, self.step // 2), self.plan.steps - self.step))
        elif score >= self.plan.perfect:
            self._cool("solved", 0)

    def _cool(self, reason: str, steps: int) -> None:
        self.cooling_rate = self.rate()
        self.cooling_from, self.cooling_steps, self.reason = self.step, max(0, steps), reason

    @property
    def is_over(self) -> bool:
        """Say whether the last step has been taken."""
        if self.cooling_from is None:
            return False
        late = self.plan.seconds is not None and self.elapsed >= self.plan.seconds
        return late or self.step >= self.cooling_from + self.cooling_steps

    def share(self) -> float:
        """Return the work done, in [0, 1]: by steps or by time, whichever is further."""
        if self.is_over:
            return 1.0
        by_time = self.elapsed / self.plan.seconds if self.plan.seconds else 0.0
        return min(1.0, max(self.step / self.plan.steps, by_time))
