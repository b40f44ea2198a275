"""Configurations as JSON values, and back."""

from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from retrac.errors import RetracError, unknown

Config = TypeVar("Config", bound="Plain")


@dataclass(frozen=True)
class Plain:
    """A configuration that `run.json` keeps."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        content: dict[str, Any] = _to_plain(asdict(self))
        return content

    @classmethod
    def from_json(cls: type[Config], content: dict[str, Any]) -> Config:
        """Read what `to_json` wrote.

        Raises:
            RetracError: fields that this version does not know, or values that make no sense.
        """
        try:
            found: Config = _from_plain(cls, content)
        except (KeyError, TypeError, AttributeError) as error:
            raise RetracError(f"the run's configuration cannot be read ({error})") from error
        return found


def refuse_unknown_choices(part: Any) -> None:
    """Refuse a configuration in which a value is none of those of its Literal.

    Raises:
        RetracError: as an option of the command line, with what there is.
    """
    for name, hint in get_type_hints(type(part)).items():
        value, option = getattr(part, name), f"--{name.replace('_', '-')}"
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise unknown(option, str(value), get_args(hint))


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [_to_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _from_plain(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        hints, kind = get_type_hints(hint), cast(Any, hint)
        if lost := [name for name in hints if is_dataclass(hints[name]) and name not in value]:
            raise KeyError(*lost)
        return kind(**{name: _from_plain(hints[name], inner) for name, inner in value.items()})
    if isinstance(value, list):
        if get_origin(hint) is not tuple:
            raise TypeError(f"a list, {value}, where there is none")
        return tuple(_from_plain(get_args(hint)[0], inner) for inner in value)
    return Path(value) if value is not None and Path in (hint, *get_args(hint)) else value
