"""Leaves out what dbt does again for each macro, query and result, in a process that runs the same nodes many times.

It is a fifth of the processor time of a small build. The parts of dbt that are replaced here are not public: dbt-core
and its libraries are pinned exactly, and tests/dbt_project/test_build.py compares the results with a full refresh.
"""

import marshal
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dbt_common.clients import agate_helper
from dbt_common.clients.jinja import BaseMacroGenerator, MacroFuzzEnvironment, NativeSandboxEnvironment
from dbt_common.dataclass_schema import dbtClassMixin
from dbt_common.events.base_types import BaseEvent

Codes = dict[tuple[bool, str], Any]
"""The compiled code of templates by whether they are native, and by their text."""


@contextmanager
def repeated_work_left_out(templates: Path) -> Iterator[None]:
    """Within the context, do this work once, or not at all where nobody sees its result.

    Args:
        templates: file that keeps the compiled code of macros, hooks and arguments for the next process.
    """
    codes = _load(templates)
    known = len(codes)
    replaced: list[tuple[Any, str, Any]] = [
        # parsers of dates and numbers, which agate makes for each result
        (agate_helper, "build_type_tester", _kept_type_tester(agate_helper.build_type_tester)),
        (agate_helper, "empty_table", cache(agate_helper.empty_table)),
        # the module of a macro's template, which looks up its variables at each call
        (BaseMacroGenerator, "get_macro", _kept_macro(BaseMacroGenerator.get_macro)),
        (MacroFuzzEnvironment, "compile", _kept_code(MacroFuzzEnvironment.compile, codes)),
        # the fields of events: ResidentProject drops all of them
        (BaseEvent, "__init__", lambda *_, **__: None),
        # the shape of dbt_project.yml and profiles.yml, which dbt checked when it parsed the project
        (dbtClassMixin, "validate", classmethod(lambda *_: None)),
    ]
    with ExitStack() as restored:
        for owner, name, replacement in replaced:
            if name in vars(owner):
                restored.callback(setattr, owner, name, vars(owner)[name])
            else:  # inherited
                restored.callback(delattr, owner, name)
            setattr(owner, name, replacement)
        yield
    if len(codes) > known:
        _save(templates, codes)


def _load(file: Path) -> Codes:
    """The codes that a process with the same versions has saved.

    Jinja's FileSystemBytecodeCache keeps one file per template, in the same format. Reading 430 files took 0.4 s more
    per build, of 6.
    """
    with suppress(OSError, EOFError, ValueError, TypeError):
        versions, codes = marshal.loads(file.read_bytes())  # noqa: S302  only this user's builds write there
        if versions == _versions():
            kept: Codes = codes
            return kept
    return {}


def _save(file: Path, codes: Codes) -> None:
    """Replace the file in one step; a full disk only costs the next process time."""
    new = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        try:
            new.write_bytes(marshal.dumps((_versions(), codes)))
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)


def _versions() -> tuple[str, ...]:
    return sys.version, version("jinja2"), version("dbt-common")


def _kept_type_tester(build: Callable[..., Any]) -> Callable[..., Any]:
    @cache
    def tester(texts: frozenset[str], nulls: tuple[str, ...]) -> Any:
        return build(texts, nulls)

    def kept(text_columns: Iterable[str], string_null_values: Iterable[str] | None = ("null", "")) -> Any:
        return tester(frozenset(text_columns), tuple(string_null_values or ()))

    return kept


def _kept_macro(get_macro: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    def kept(self: Any) -> Callable[..., Any]:
        macro: Callable[..., Any] | None = self.__dict__.get("kept_macro")
        if macro is None:
            macro = self.kept_macro = get_macro(self)
        return macro

    return kept


def _kept_code(compile_template: Callable[..., Any], codes: Codes) -> Callable[..., Any]:
    def kept(self: Any, source: Any, *arguments: Any, **options: Any) -> Any:
        if arguments or options or not isinstance(source, str):
            return compile_template(self, source, *arguments, **options)
        key = isinstance(self, NativeSandboxEnvironment), source
        if key not in codes:
            codes[key] = compile_template(self, source)
        return codes[key]

    return kept
