"""A copy of the settled search trials in an Optuna storage, so that Optuna's dashboard can watch a study.

The ledger stays the only source of truth: nothing is ever read back from the copy but what it holds already.
"""

from __future__ import annotations

import math
import queue
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sarx.search.arm_search import ArmSearch, Seat
from sarx.search.axes import decode, encode, on_axis
from sarx.search.engine import Engine
from sarx.search.state import FINISHED, Record
from sarx.study.arm import Arm
from sarx.study.schema import Study
from sarx.study.space import Parameter

if TYPE_CHECKING:
    import optuna

PATIENCE_S = 60.0
"""Seconds that the end of a study waits for the storage."""
Mark = tuple[str, str, int]
"""What makes a copied trial one of its own: trial_id, Optuna state, first attempt that counts."""


@dataclass(frozen=True)
class Settled:
    """One settled search trial as plain values.

    Attributes:
        study: Name of its Optuna study.
        state: COMPLETE, PRUNED or FAIL.
        point: What it used of every searched option.
        values: One per goal, in the user's units; of a stopped trial its last objective, or none.
        course: Objective by epoch.
        seconds: Recorded time.
        attributes: Optuna user attributes.
    """

    study: str
    arm: Arm
    state: str
    point: Mapping[str, Any]
    values: tuple[float, ...]
    course: Mapping[int, float]
    seconds: float
    attributes: Mapping[str, Any]

    @property
    def mark(self) -> Mark:
        """What tells it from others: a trial that ran again after it had failed shows a second time."""
        return self.attributes["trial_id"], self.state, self.attributes["since"]


@dataclass
class _Waiting:
    """How far the seats of one search have been looked at, and those that had not settled then."""

    seen: int = 0
    seats: list[Seat] = field(default_factory=list)


class Mirror:
    """Copies settled search trials into one Optuna study for each arm and repeat.

    The Optuna study of an arm is called ``<study>/<arm key>``, that of a further repeat r
    ``<study>/<arm key>#r``. A proposal equal to an earlier one of its arm is left out. A thread of its own
    talks to the storage, so that a slow or dead one cannot hold the study up; what it had not written when
    the process ended is written by the next start. After the first error there is one warning and no more
    copying.

    Args:
        url: What Optuna calls a storage URL, such as ``sqlite:///optuna.db``; None: copy nothing.
        study: The study.
        arms: Its arms.
    """

    def __init__(self, url: str | None, study: Study, arms: Sequence[Arm]) -> None:
        """Prepare; the storage is opened with the first trial."""
        self.url, self.study = url or "", study
        self.arms = {arm.key: arm for arm in arms}
        self.on = bool(url)
        self.trouble = ""
        self._waiting: dict[tuple[str, int], _Waiting] = {}
        self._queue: queue.SimpleQueue[Settled | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def settle(self, engine: Engine) -> None:
        """Hand on what has settled since the last call; it never raises and never waits for the storage."""
        if not self._works():
            return
        for key, search in engine.searches.items():
            waiting = self._waiting.setdefault(key, _Waiting())
            if len(search.seats) > waiting.seen:
                waiting.seats += search.seats[waiting.seen :]
                waiting.seen = len(search.seats)
            if any(seat.settled for seat in waiting.seats):
                settled = [seat for seat in waiting.seats if seat.settled]
                waiting.seats = [seat for seat in waiting.seats if not seat.settled]
                self._hand_on(self._plain(engine, search, seat) for seat in settled if seat.same_as is None)

    def finish(self, engine: Engine, patience_s: float = PATIENCE_S) -> None:
        """Hand on what is left and wait until the storage has it, at most ``patience_s`` seconds."""
        self.settle(engine)
        if self._thread is None or not self.on:
            return
        self._queue.put(None)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self.trouble = f"did not take all trials within {patience_s:g} s"
        self._works()
        self.on = False

    # ---------------------------------------------------------------- in the caller's thread

    def _works(self) -> bool:
        """Whether copying goes on; says once why it does not."""
        if self.on and self.trouble:
            self.on = False
            print(
                f"warning: the Optuna storage {_masked(self.url)}: {self.trouble}; the study goes on without "
                "it, and the next start copies what is missing",
                flush=True,
            )
        return self.on

    def _hand_on(self, found: Any) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="optuna-mirror", daemon=True)
            self._thread.start()
        for settled in found:
            self._queue.put(settled)

    def _plain(self, engine: Engine, search: ArmSearch, seat: Seat) -> Settled:
        claim, record = seat.claim, engine.record(seat.claim)
        arm = self.arms.get(claim.arm.key, claim.arm)
        course = {
            epoch: goals[0]
            for epoch, goals in record.goals.items()
            if not math.isnan(goals[0]) and (seat.stopped is None or epoch <= seat.stopped)
        }
        state, values = _outcome(seat, record, course, len(self.study.objective.goals))
        point = {}
        for parameter in arm.space:
            group, name = parameter.key.split(".")
            if parameter.key in claim.parameters:
                point[parameter.key] = claim.parameters[parameter.key]
            else:  # the options of a trial are resolved where they are asked for
                point[parameter.key] = getattr(getattr(claim.config, group), name, None)
        attributes = {
            "trial_id": claim.trial_id,
            "seed": str(claim.seed),  # browsers would round it
            "phase": claim.phase,
            "index": claim.index,
            "since": record.since,
        }
        if state == "FAIL":
            odd = record.status == FINISHED
            attributes["reason"] = "a goal is not finite" if odd else f"{record.kind}: {record.reason}"
        name = f"{self.study.study}/{arm.key}" + (f"#{search.repeat}" if search.repeat else "")
        return Settled(name, arm, state, point, values, course, record.seconds, attributes)

    # ---------------------------------------------------------------- in the storage's thread

    def _serve(self) -> None:
        try:
            self._copy()
        except Exception as error:  # noqa: BLE001  a database driver may raise anything; the study goes on
            self.trouble = _masked(_reason(error))

    def _copy(self) -> None:
        import optuna

        storage = optuna.storages.get_storage(self.url)
        studies: dict[str, tuple[optuna.Study, set[Mark]]] = {}
        for settled in iter(self._queue.get, None):
            if settled.study not in studies:
                studies[settled.study] = self._open(storage, settled)
            study, there = studies[settled.study]
            if settled.mark not in there:
                study.add_trial(_frozen(settled))
                there.add(settled.mark)

    def _open(self, storage: optuna.storages.BaseStorage, first: Settled) -> tuple[optuna.Study, set[Mark]]:
        """Open or make one Optuna study; return it and what it holds.

        Raises:
            ValueError: If it has other goals.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        goals = self.study.objective.goals
        kinds = optuna.study.StudyDirection
        directions = [kinds.MAXIMIZE if goal.mode == "max" else kinds.MINIMIZE for goal in goals]
        study = optuna.create_study(
            study_name=first.study, storage=storage, directions=directions, load_if_exists=True
        )
        if study.directions != directions:
            raise ValueError(f"it has a study {first.study} with other goals; take another database")
        for name, value in (("arm", first.arm.key), ("goals", [goal.metric for goal in goals])):
            study.set_user_attr(name, value)
        there = {
            (trial.user_attrs.get("trial_id", ""), trial.state.name, trial.user_attrs.get("since", 1))
            for trial in study.get_trials(deepcopy=False)
        }
        return study, there


def _outcome(
    seat: Seat, record: Record, course: Mapping[int, float], goals: int
) -> tuple[str, tuple[float, ...]]:
    """Return Optuna's state and values of a settled trial; of a stopped one its last objective, as Optuna."""
    if seat.stopped is not None:
        return "PRUNED", (course[max(course)],) if course and goals == 1 else ()
    if record.status == FINISHED and record.final and all(map(math.isfinite, record.final)):
        return "COMPLETE", record.final
    return "FAIL", ()


def _frozen(settled: Settled) -> optuna.trial.FrozenTrial:
    """Return a trial as Optuna takes it; a default outside its range is a user attribute."""
    import optuna

    attributes = dict(settled.attributes)
    params, distributions = {}, {}
    for parameter in settled.arm.space:
        value = settled.point[parameter.key]
        if on_axis(parameter, value):
            distributions[parameter.key] = _distribution(parameter)
            params[parameter.key] = _written(parameter, value)
        else:
            attributes[f"outside the range: {parameter.key}"] = _written(parameter, value)
    now = datetime.now()
    return optuna.trial.FrozenTrial(
        number=-1,
        trial_id=-1,
        state=optuna.trial.TrialState[settled.state],
        value=None,
        values=list(settled.values) or None,
        datetime_start=now - timedelta(seconds=settled.seconds),
        datetime_complete=now,
        params=params,
        distributions=distributions,
        user_attrs=attributes,
        system_attrs={},
        intermediate_values=dict(settled.course),
    )


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    import optuna

    low, high, log, step = parameter.low, parameter.high, parameter.log, parameter.step
    if parameter.kind == "choice":
        return optuna.distributions.CategoricalDistribution([_text(choice) for choice in parameter.choices])
    if parameter.kind == "int":
        return optuna.distributions.IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return optuna.distributions.FloatDistribution(low, high, log=log, step=step)


def _written(parameter: Parameter, value: Any) -> Any:
    """Return a value as Optuna's distribution has it: steps to the last bit, choices as Optuna can store."""
    if parameter.kind == "choice":
        return _text(value)
    if parameter.step is None or not on_axis(parameter, value):
        return value
    return decode([parameter], encode([parameter], {parameter.key: value}))[parameter.key]


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _reason(error: BaseException) -> str:
    """Return the first line of what an error came from; Optuna's own message hides the database's."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _masked(text: str) -> str:
    """Return a text without the passwords of the URLs in it."""
    text = re.sub(r"(://[^/@:\s]*:)[^\s]+@", r"\1***@", text)
    return re.sub(r"([?&](?:password|passwd|pwd)=)[^&\s]+", r"\1***", text)
