"""The text of a configuration file: YAML with the place of every value, held against a type.

Everything that does not fit is found at once, each with its line, and in words that say what to write:
`read_text` goes on after a mistake, with the default in its place. Values stay text until the type says
more, so a ``${PORT}`` can be a number, a key of digits stays a key, and no tag makes anything else. No
value is ever quoted, since any may be a secret; names are. What the settings are is the caller's type.

Paths: ``listen.port``, ``models.fast[0].provider``.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import yaml
from msgspec import inspect

MAX_NODES: Final = 100_000
"""Values in a file: aliases of aliases can make billions out of a few lines."""

MAX_DEPTH: Final = 40

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FILE: Final = re.compile(r"\$\{file:([^}]+)\}")
_REPLACED: Final = re.compile(f"{_VARIABLE.pattern}|{_FILE.pattern}")
_NO_VARIABLE: Final = re.compile(r"\$\{(?![A-Za-z_][A-Za-z0-9_]*\}|file:[^}])[^}]*\}")
_EMPTY: Final = frozenset({"", "~", "null", "Null", "NULL"})
_MISSING: Final[Any] = object()


class Place(NamedTuple):
    """Where something stands; both from 1, and 0 when it is not known."""

    line: int = 0
    column: int = 0


class Fault(NamedTuple):
    """Something wrong in the text: the path of the setting, what to write instead, and where."""

    where: str
    what: str
    place: Place


class Text(NamedTuple):
    """A file as far as it could be understood: ``value`` fits the type, with the faults left out. ``files``
    are those that values were read from."""

    value: dict[str, Any]
    places: dict[str, Place]
    faults: list[Fault]
    files: tuple[str, ...]


class NotYaml(Exception):
    """The text cannot be read at all; ``fault`` says why."""

    def __init__(self, what: str, place: Place) -> None:
        """``what`` is the sentence."""
        super().__init__(what)
        self.fault = Fault("", what, place)


def read_text(text: str, kind: type, environ: Mapping[str, str], read_secret: Callable[[str], str]) -> Text:
    """Return what ``text`` says, held against the struct ``kind``. Raises `NotYaml`.

    ``read_secret`` returns what a file holds, and raises `OSError`, or `ValueError` with words for it.
    """
    try:
        root = yaml.compose(text, yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYaml(_syntax(error), Place(mark.line + 1, mark.column + 1) if mark else Place()) from None
    except yaml.reader.ReaderError as error:
        what = "there is a character here that text cannot hold: save the file as UTF-8 text"
        raise NotYaml(what, Place(text.count("\n", 0, error.position) + 1)) from None
    except (yaml.YAMLError, ValueError):
        raise NotYaml("it holds characters that text cannot hold: save the file as UTF-8", Place()) from None
    except RecursionError:
        raise NotYaml("it is nested too deeply", Place()) from None
    fitting = _Fitting(environ, inspect.type_info(kind), read_secret)
    value = {} if root is None else fitting.fit(root, fitting.kind, "", None)
    return Text(
        value if isinstance(value, dict) else {}, fitting.places, fitting.faults, tuple(fitting.files)
    )


class _Fitting:
    """One walk over the nodes of a file and, beside them, over the type."""

    def __init__(
        self, environ: Mapping[str, str], kind: inspect.Type, read_secret: Callable[[str], str]
    ) -> None:
        self.files: dict[str, None] = {}
        self._read_secret = read_secret
        self.kind = kind
        self.places: dict[str, Place] = {}
        self.faults: list[Fault] = []
        self._environ = environ
        self._nodes = 0
        self._depth = 0

    def fit(self, node: yaml.Node, kind: inspect.Type, where: str, default: Any) -> Any:
        """Return the value of ``node`` as ``kind``; ``_MISSING`` when it must be left out."""
        place = _place(node)
        self.places.setdefault(where, place)
        self._nodes += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            if self._nodes <= MAX_NODES + 1:
                self._nodes = MAX_NODES + 1  # said once
                self._fault(where, "the file has too many values, or values nested too deeply", place)
            return _MISSING
        self._depth += 1
        try:
            if isinstance(kind, inspect.UnionType):
                kind = _member(kind, node)
            match kind:
                case inspect.StructType():
                    return self._struct(node, kind, where, place)
                case inspect.DictType():
                    return self._dict(node, kind, where, place)
                case inspect.ListType() | inspect.VarTupleType():
                    return self._list(node, kind, where, place)
            return self._leaf(node, kind, where, place, default)
        finally:
            self._depth -= 1

    def _fault(self, where: str, what: str, place: Place) -> Any:
        self.faults.append(Fault(where, what, place))
        return _MISSING

    def _struct(self, node: yaml.Node, kind: inspect.StructType, where: str, place: Place) -> Any:
        if _is_empty(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            names = ", ".join(field.name for field in kind.fields[:3])
            what = f"write settings here, by name ({names}, …); {_found(node)} was found"
            return self._fault(where, what, place)
        fields = {field.encode_name: field for field in kind.fields}
        made = {}
        for key, name, value in self._members(node, where):
            if field := fields.get(name):
                default = None if field.default is msgspec.NODEFAULT else field.default
                fitted = self.fit(value, field.type, _join(where, name), default)
                if fitted is not _MISSING:
                    made[name] = fitted
            else:
                self._fault(where, self._unknown(name, fields, where), _place(key))
        for field in kind.fields:
            if field.required and field.encode_name not in made:
                if not self._is_faulty(_join(where, field.encode_name)):
                    self._fault(where, f"'{field.encode_name}' is missing here", place)
                return _MISSING
        return made

    def _dict(self, node: yaml.Node, kind: inspect.DictType, where: str, place: Place) -> Any:
        if _is_empty(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            return self._fault(where, f"write 'name: value' lines here; {_found(node)} was found", place)
        made = {}
        for key, name, value in self._members(node, where):
            path = _join(where, name)
            if _may_be_text(kind.value_type) and _is_empty(value):
                # The line may well be a bare secret: it is not repeated.
                self._fault(where, "write 'name: value'; there is a line with no value", _place(key))
                continue
            fitted = self.fit(value, kind.value_type, path, None)
            if fitted is not _MISSING:
                made[name] = fitted
        return made

    def _list(
        self, node: yaml.Node, kind: inspect.ListType | inspect.VarTupleType, where: str, place: Place
    ) -> Any:
        if _is_empty(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            example = "[…]"
            if isinstance(kind.item_type, inspect.StructType):
                names = ", ".join(f"{field.encode_name}: …" for field in kind.item_type.fields)
                example = f"[{{{names}}}]"
            return self._fault(where, f"write a list here: {example}; {_found(node)} was found", place)
        fitted = [self.fit(item, kind.item_type, f"{where}[{i}]", None) for i, item in enumerate(node.value)]
        return [item for item in fitted if item is not _MISSING]

    def _leaf(self, node: yaml.Node, kind: inspect.Type, where: str, place: Place, default: Any) -> Any:
        wanted = _wanted(kind, default)
        if not isinstance(node, yaml.ScalarNode):
            return self._fault(where, f"write {wanted}; {_found(node)} was found", place)
        if _is_empty(node):
            if isinstance(kind, inspect.StrType):
                return ""
            return self._fault(where, f"write {wanted}, or leave the line out", place)
        text = self._expand(node.value, where, place)
        if text is None:
            return _MISSING
        if isinstance(kind, inspect.StrType):
            return text
        if not _fits(text, kind):
            found, near = "text", ""
            if isinstance(kind, inspect.LiteralType):
                found, near = "something else", _near(node.value, [str(value) for value in kind.values])
            return self._fault(where, f"write {wanted}; {found} was found{near}", place)
        return text

    def _members(self, node: yaml.MappingNode, where: str) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
        """Yield the members of a mapping, each name once."""
        seen: dict[str, Place] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fault(where, f"a name is a text; {_found(key)} was found", _place(key))
                continue
            first = seen.setdefault(key.value, _place(key))
            if first != _place(key):
                what = (
                    f"'{_short(key.value)}' stands here twice (first in line {first.line}): keep one of them"
                )
                self._fault(where, what, _place(key))
                continue
            self.places.setdefault(_join(where, key.value), _place(key))
            yield key, key.value, value

    def _expand(self, text: str, where: str, place: Place) -> str | None:
        """Return ``text`` with its variables replaced; None when it cannot be."""
        good = True
        if _NO_VARIABLE.search(text):
            what = (
                "between '${' and '}' stands the name of an environment variable, or file: and a path, "
                "and nothing else"
            )
            self._fault(where, what, place)
            good = False
        for name in dict.fromkeys(_VARIABLE.findall(text)):
            if name not in self._environ:
                self._fault(where, f"the environment variable {name} is not set", place)
                good = False
        held: dict[str, str] = {}
        for path in dict.fromkeys(_FILE.findall(text)):
            self.files[path] = None
            try:
                held[path] = self._read_secret(path)
            except OSError as error:
                self._fault(where, f"the file {path} cannot be read: {error.strerror}", place)
                good = False
            except ValueError as error:
                self._fault(where, f"the file {path} {error}", place)
                good = False
        if not good:
            return None
        # In one go: what a secret holds is text, whatever it looks like.
        return _REPLACED.sub(
            lambda found: self._environ[found[1]] if found[1] is not None else held[found[2]], text
        )

    def _unknown(self, name: str, fields: Iterable[str], where: str) -> str:
        what = f"'{_short(name)}' is no setting"
        if near := _near(name, fields):
            return what + near
        if not where and (homes := _homes(self.kind, name)):
            return f"{what} here: it stands under {' or '.join(homes)}"
        return f"{what} here; there are: {', '.join(fields)}"

    def _is_faulty(self, where: str) -> bool:
        return any(fault.where == where for fault in self.faults)


def _homes(kind: inspect.Type, name: str) -> list[str]:
    """Return the parts that have a setting called ``name``."""
    parts = kind.fields if isinstance(kind, inspect.StructType) else ()
    homes = []
    for part in parts:
        inner = part.type.fields if isinstance(part.type, inspect.StructType) else ()
        if name in {field.encode_name for field in inner}:
            homes.append(f"'{part.encode_name}:'")
    return homes


def _fits(text: str, kind: inspect.Type) -> bool:
    plain: Any
    match kind:
        case inspect.LiteralType():
            return text in {str(value) for value in kind.values}
        case inspect.IntType():
            plain = int
        case inspect.FloatType():
            plain = float
        case inspect.BoolType():
            plain = bool
        case _:
            return True
    try:
        msgspec.convert(text, plain, strict=False)
    except msgspec.ValidationError:
        return False
    return True


def _member(kind: inspect.UnionType, node: yaml.Node) -> inspect.Type:
    """Return the type of a union that a node of this form can only mean."""
    mapping, sequence = (inspect.StructType, inspect.DictType), (inspect.ListType, inspect.VarTupleType)
    types = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
    fitting: list[inspect.Type]
    match node:
        case yaml.MappingNode():
            fitting = [one for one in types if isinstance(one, mapping)]
        case yaml.SequenceNode():
            fitting = [one for one in types if isinstance(one, sequence)]
        case _:
            fitting = [one for one in types if not isinstance(one, (*mapping, *sequence))]
    return (fitting or types)[0]


def _may_be_text(kind: inspect.Type) -> bool:
    types = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return any(isinstance(one, inspect.StrType) for one in types)


def _wanted(kind: inspect.Type, default: Any) -> str:
    match kind:
        case inspect.IntType():
            return f"a whole number, such as {default or 1}"
        case inspect.FloatType():
            return f"a number, such as {default or 1:g}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return _one_of([str(value) for value in kind.values if value != ""])
        case inspect.StrType() if default:
            return f"a text, such as {default}"
    return "a text"


def _one_of(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _near(name: str, known: Iterable[str]) -> str:
    """Return a question that names what ``name`` was meant to be; empty when nothing is near."""
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), 1, 0.7)
    return f": did you mean {found[0]}?" if found else ""


def _found(node: yaml.Node) -> str:
    match node:
        case yaml.MappingNode():
            return "a mapping"
        case yaml.SequenceNode():
            return "a list"
    return "nothing" if _is_empty(node) else "text"


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _EMPTY


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:39] + "…"


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """Say what is wrong in words of ours: the library's may quote the line."""
    problem, context = error.problem or "", error.context or ""
    begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
    if "'\\t'" in problem:
        return "a tab stands here: indent with spaces"
    if "scanning an alias" in context or "undefined alias" in problem:
        return "a text that begins with * must stand in quotes: '*'"
    if "scanning an anchor" in context:
        return "a text that begins with & must stand in quotes"
    if found := re.search(r"found character '(.)' that cannot start", problem):
        return f"a text that begins with {found[1]} must stand in quotes"
    if "mapping values are not allowed" in problem:
        return "a second ': ' in one value: put the value in quotes, or indent the lines alike"
    if "quoted scalar" in context:
        return f"the quote{begun} is not closed"
    if "flow sequence" in context:
        return f"the list [ … ]{begun} is not closed, or lacks a comma"
    if "flow mapping" in context:
        return f"the mapping {{ … }}{begun} is not closed, or lacks a comma"
    if "flow node" in context:
        return f"the [ or {{{begun} is not closed"
    if "block mapping" in context or "block collection" in context:
        return "this line does not go on with the part above: check its indentation and its ':'"
    if "could not find expected ':'" in problem:
        return "a ':' is missing after the name"
    if "single document" in context:
        return "a second document begins here: a configuration is one, so take the '---' out"
    return "this is not YAML"
