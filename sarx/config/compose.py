"""Composition of options from the Hydra groups under sarx/conf; the only place that imports Hydra.

A study and the command line say the same things: ``group=name`` chooses a file of a group,
``group.option=value`` sets one option. Files hold only what differs from the dataclass defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sarx.config.errors import UserError, nearest
from sarx.config.schema import EXCLUSIVE, GROUPS, TrainConfig, build, dotted_keys, fill
from sarx.config.schema.options import field_types

UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
"""What PyYAML raises on bad text: its own errors, and others on bad dates and on tags that do not fit."""

EXPERIMENT = "experiment"

CONF = Path(__file__).resolve().parents[1] / "conf"


def group_names(group: str) -> list[str]:
    """Return the names that a group knows: its files, and its registered parts at their defaults."""
    return sorted({path.stem for path in (CONF / group).glob("*.yaml")} | (GROUPS[group].keys() - {"*"}))


def compose(
    overrides: Sequence[str] | Mapping[str, Any], optional: frozenset[str] = frozenset()
) -> TrainConfig:
    """Compose and check one training configuration.

    Args:
        overrides: ``["regularizer=none", "optim.lr=0.01"]`` or the same as a mapping.
        optional: Keys of ``overrides`` to leave out where the chosen parts do not have them.

    Raises:
        UserError: For an unknown group, file or key, a wrong type, or a value outside its range.
    """
    pairs = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    choices: dict[str, str] = {}
    for key, value in pairs.items():
        if key in GROUPS:
            check_choice(key, value)
            choices[key] = value
    values = {
        group: dict(options) for group, options in compose_groups(tuple(sorted(choices.items()))).items()
    }
    full = fill(values)  # whether the parts fit is asked once the options are in
    known = dotted_keys(full)
    options = {k: v for k, v in pairs.items() if k not in GROUPS and (k in known or k not in optional)}
    return build(override(full, options))


def check_choice(group: str, name: Any) -> None:
    """Refuse a file that its group does not have."""
    names = group_names(group)
    if name not in names:
        raise UserError(f"there is no {group} called {name!r}; {nearest(str(name), names)}", key=group)


def override(values: Mapping[str, Any], pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested option values with dotted keys replaced.

    Giving one spelling of a quantity that has two (``EXCLUSIVE``) clears the other.

    Raises:
        UserError: For a key that these groups do not have.
    """
    result = {key: dict(part) if isinstance(part, Mapping) else part for key, part in values.items()}
    known = dotted_keys(values)
    for key, value in pairs.items():
        if key in ("seed", "role"):
            result[key] = value
            continue
        if key not in known or key.endswith(".name"):
            raise UserError(unknown_key(key, values), key=key)
        group, name = key.split(".")
        result[group][name] = value
    for first, second in EXCLUSIVE:
        for given, other in ((first, second), (second, first)):
            if pairs.get(given) is not None and other in known and pairs.get(other) is None:
                group, name = other.split(".")
                result[group][name] = None
    return result


def unknown_key(key: str, values: Mapping[str, Any]) -> str:
    """Say why an option key is not known to these groups, and what would be right."""
    known = [name for name in dotted_keys(values) if not name.endswith(".name")]
    group, _, name = key.partition(".")
    elsewhere = [
        part for part, owner in GROUPS.get(group, {}).items() if name in field_types(owner) and name != "name"
    ]
    if elsewhere:
        return f"{group}={values[group]['name']} has no option {name!r} ({', '.join(elsewhere)} has)"
    same_group = [option for option in known if option.startswith(f"{group}.")]
    return f"unknown key; {nearest(key, same_group or known)}"


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` texts; values are YAML scalars, and nothing is an empty text.

    ``experiment=NAME`` stands for all that sarx/conf/experiment/NAME.yaml sets; the other texts come after.

    Raises:
        UserError: For a text without ``=``, an interpolation, a key given twice or an unknown experiment.
    """
    pairs: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        key = key.strip()
        if not separator or not key:
            raise UserError(f"{text!r}: expected KEY=VALUE, for example optim.lr=0.01 or regularizer=none")
        if "${" in value:
            raise UserError(f"interpolation ({value}) is not allowed; write the value itself", key=key)
        if key in pairs:
            raise UserError("given twice", key=key)
        try:
            pairs[key] = value if key in GROUPS or not value.strip() else yaml.safe_load(value)
        except UNREADABLE:
            raise UserError(f"cannot read the value {value!r}", key=key) from None
    if EXPERIMENT in pairs:
        return {**experiment(str(pairs.pop(EXPERIMENT))), **pairs}
    return pairs


def experiment_names() -> list[str]:
    """Return the names of the experiments: the files of sarx/conf/experiment."""
    return sorted(path.stem for path in (CONF / EXPERIMENT).glob("*.yaml"))


def experiment(name: str) -> dict[str, Any]:
    """Return what an experiment sets: group or dotted option -> value.

    Raises:
        UserError: For an unknown one.
    """
    if name not in experiment_names():
        raise UserError(
            f"there is no experiment called {name!r}; {nearest(name, experiment_names())}", key=EXPERIMENT
        )
    found: dict[str, Any] = yaml.safe_load((CONF / EXPERIMENT / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def compose_groups(choices: tuple[tuple[str, str], ...]) -> dict[str, dict[str, Any]]:
    """Put the chosen files and the defaults of the other groups together: group -> option -> value."""
    found = {group: dict(options) for group, options in _defaults().items()}
    return found | {group: dict(_part(group, name)) for group, name in choices}


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    """Let Hydra compose sarx/conf/train.yaml: group -> option -> value."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    for group, owners in GROUPS.items():
        for name in owners.keys() - {"*"}:  # a file of the same name comes first
            ConfigStore.instance().store(group=group, name=name, node={"name": name})
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra_compose("train")
    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict)
    return {str(group): dict(options) for group, options in plain.items()}


@cache
def _part(group: str, name: str) -> dict[str, Any]:
    """Return what a choice of a group says: its file, else its name alone.

    A whole composition by Hydra gives the same and takes .1 to .2 s; a study makes many.
    """
    from omegaconf import OmegaConf

    file = CONF / group / f"{name}.yaml"
    if not file.is_file():
        return {"name": name}
    plain = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert isinstance(plain, dict)
    assert "defaults" not in plain, f"{file}: only Hydra follows defaults"
    return {str(option): value for option, value in plain.items()}
