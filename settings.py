"""Settings: the typed knobs of every stage, from a preset, the user's own subject.toml and --set.

A setting is called ``section.key``: the section belongs to a stage, the key is a field of the config dataclass beside
that stage.  Later layers win: dataclass default < preset < subject.toml < --set.  Config classes are given by their
dotted path and imported when a setting of their section is first needed, because some live beside heavy packages.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from capture.errors import UserError
from capture.manifest import Scalar, digest_file

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Layer:
    """Settings that came from one place."""

    origin: str  # for people: "--set", "workspace/alice/subject.toml", "preset cpu"
    values: Mapping[str, Any]  # "section.key": value
    is_text: bool = False  # values are words of a command line, to be read as the field's type
    is_explicit: bool = True  # the user chose them one by one; False for a preset


class Settings:
    """The settings of one subject or avatar: layers on top of the defaults, typed by the config classes.

    ``configs`` maps each section to the dotted path of its dataclass.  Raises UserError at once for a section or key
    that does not exist and for a value that does not fit.
    """

    def __init__(self, configs: Mapping[str, str], layers: Sequence[Layer], preset: str = "") -> None:
        self.preset = preset
        self._configs = configs
        self._values: dict[str, Scalar] = {}
        self._explicit: set[str] = set()
        self._built: dict[str, Any] = {}
        for layer in layers:
            for name, raw in layer.values.items():
                self._values[name] = self._read(name, raw, layer)
                if layer.is_explicit:
                    self._explicit.add(name)
        for section in {name.partition(".")[0] for name in self._values}:
            self.config(section)  # the dataclass's own checks speak before anything is made

    def config(self, section: str) -> Any:
        """The config dataclass of a section.  Raises UserError when its own checks refuse a value."""
        if section not in self._built:
            chosen = {n.partition(".")[2]: v for n, v in self._values.items() if n.partition(".")[0] == section}
            self._built[section] = config_class(self._configs[section])(**chosen)
        return self._built[section]

    def that_matter(self, sections: Iterable[str]) -> dict[str, Scalar]:
        """All settings in ``sections`` that can change what a stage writes, as "section.key": value.

        A field with ``metadata={"late": True}`` was added later and does at its default what was done before it: left
        at the default it does not count, so that what was made before stays up to date.  Of a field with
        ``metadata={"file": True}`` the content of the named file or folder counts, too, unless the value is one of
        the field's ``"words"``.
        """
        return {
            f"{section}.{field.name}": with_content(getattr(self.config(section), field.name), field.metadata)
            for section in sections
            for field in fields(self.config(section))
            if not field.metadata.get("cosmetic")
            and not (field.metadata.get("late") and getattr(self.config(section), field.name) == field.default)
        }

    def is_explicit(self, name: str) -> bool:
        """Whether the user chose this setting, rather than a preset or a default."""
        return name in self._explicit

    def _read(self, name: str, raw: Any, layer: Layer) -> Scalar:
        where = f"--set {name}={raw}" if layer.is_text else f"{layer.origin}: {name} = {raw!r}"
        section, _, key = name.partition(".")
        if section not in self._configs:
            raise UserError(f"{where}: there is no section {section!r}{nearest(section, self._configs)}")
        types_by_key = field_types(config_class(self._configs[section]))
        if key not in types_by_key:
            raise UserError(f"{where}: there is no setting {name!r}{nearest(key, types_by_key, f'{section}.')}")
        try:
            return read_text(raw, types_by_key[key]) if layer.is_text else check_value(raw, types_by_key[key])
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None


def with_content(value: Scalar, metadata: Mapping[str, Any]) -> Scalar:
    """The value itself, or, where it names a file or a folder, the name and the beginning of the content's digest."""
    if not metadata.get("file") or not isinstance(value, str) or value in ("", *metadata.get("words", ())):
        return value  # an empty name is no file; as a path it would be the folder we happen to be in
    path = Path(value)
    if path.is_file():
        return f"{value} ({digest_file(path)[:12]})"
    if path.is_dir():
        digests = {file.name: digest_file(file) for file in sorted(path.iterdir()) if file.is_file()}
        return f"{value} ({hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:12]})"
    return value


def config_class(path: str) -> type:
    """The dataclass at ``package.module.Name``."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def field_types(config: type) -> dict[str, tuple[type, ...]]:
    """Key -> the types that a field accepts."""
    hints = typing.get_type_hints(config)
    accepted = {}
    for field in fields(config):
        hint = hints[field.name]
        accepted[field.name] = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        assert set(accepted[field.name]) <= {int, float, bool, str, types.NoneType}, f"{config}.{field.name}: {hint}"
    return accepted


def read_text(text: str, accepted: tuple[type, ...]) -> Scalar:
    """A word of the command line as one of the accepted types.  Raises ValueError saying what was expected."""
    if types.NoneType in accepted and text.lower() == "none":
        return None
    if bool in accepted and text.lower() in TRUE + FALSE:
        return text.lower() in TRUE
    for number in (int, float):
        if number in accepted:
            try:
                value = number(text)
            except ValueError:
                continue
            if math.isfinite(value):
                return value
    if str in accepted:
        return text
    raise ValueError(f"expected {describe(accepted)}")


def check_value(value: Any, accepted: tuple[type, ...]) -> Scalar:
    """A value from a TOML file or a preset, checked.  Raises ValueError saying what was expected."""
    if type(value) is int and int not in accepted and float in accepted:
        return float(value)
    if type(value) in accepted:
        return value
    raise ValueError(f"expected {describe(accepted)}")


def describe(accepted: tuple[type, ...]) -> str:
    """Words for a user: what kind of value is expected."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "none"}
    return " or ".join(words[kind] for kind in accepted)


def nearest(wrong: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of an error message: the most similar known name, or all of them, each said with ``prefix``."""
    known = sorted(known)
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f"; did you mean {prefix}{close[0]}?" if close else f"; there are {', '.join(prefix + k for k in known)}"


def read_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """``section.key=value`` words of --set as a dict.  Raises UserError for a word of another form."""
    values = {}
    for word in assignments:
        name, equals, value = word.partition("=")
        if not equals or "." not in name:
            raise UserError(f"--set {word}: expected section.key=value, for example --set fit.iterations=8")
        values[name.strip()] = value.strip()
    return values


def read_toml(path: Path) -> tuple[str | None, dict[str, Any]]:
    """A subject.toml: (preset or None, "section.key" -> value); empty for a file that is not there."""
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return None, {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; mend or remove the file") from None
    preset = content.pop("preset", None)
    if not (preset is None or isinstance(preset, str)):
        raise UserError(f"{path}: preset = {preset!r}: expected a name in quotes")
    values = {}
    for section, table in content.items():
        if not isinstance(table, dict):
            raise UserError(
                f"{path}: {section} = {table!r}: expected a table, for example [fit] with a line iterations = 8"
            )
        values.update({f"{section}.{key}": value for key, value in table.items()})
    return preset, values
