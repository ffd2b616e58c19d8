"""What every regularizer's options have in common, and options declared in one line."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, ClassVar, Protocol

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields


class RegularizerConfig(Protocol):
    """Options of one regularizer.

    Attributes:
        implementation: ``module:Class`` of the nn.Module, which takes the options by their names.
        name: The regularizer's name.
    """

    implementation: ClassVar[str]
    name: str

    def inert(self, searched: frozenset[str]) -> frozenset[str]:
        """Return the options that cannot act, given the keys that a study searches."""
        ...

    def warnings(self) -> tuple[str, ...]:
        """Return what a reader of the plan must know."""
        ...


def declare(name: str, implementation: str, **options: Any) -> type[RegularizerConfig]:
    """Make the options of a regularizer.

    Args:
        name: What studies call it.
        implementation: ``module:Class``. The class is called with ``num_classes``, ``feature_dim`` and the
            options by name, and with those of ``ignore_index`` and ``anchor_seed`` that it takes.
        options: Fields from ``sarx.config.schema.options.option``; the type is the default's.
    """
    fields = [(key, type(field.default), field) for key, field in options.items()]
    made = dataclasses.make_dataclass(
        "".join(word.capitalize() for word in name.split("_")) + "Config",
        [("name", str, dataclasses.field(default=name)), *fields],
        namespace={
            "__post_init__": lambda self: check_fields(self, "regularizer"),
            "implementation": implementation,
            "inert": lambda self, searched: frozenset(),
            "warnings": lambda self: (),
        },
        kw_only=True,
    )
    return typing.cast(type[RegularizerConfig], made)


def check_ema(ema_decay: float | None, ema_half_life: float | None) -> None:
    """Refuse both or neither of the two ways to give the averaging time."""
    if (ema_decay is None) == (ema_half_life is None):
        raise UserError(
            "give exactly one of ema_decay and ema_half_life, the other null", key="regularizer.ema_half_life"
        )
