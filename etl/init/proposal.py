"""A settings file for a database that exists: which collections fit a kind, and by which mapping; pure.

Guesses from names. A field with the name of a contract field, apart from case and underscores, is mapped; a similar
name is proposed in a comment, as is everything that a person has to decide.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from json import dumps
from typing import Final

from etl.mongo import indexes
from etl.mongo.survey import Survey
from etl.text import counted, printable
from schemas.documents import FAMILIES, KINDS
from schemas.documents.kind import Kind

_UPDATED: Final = re.compile("updat|modif|actualiz|chang|cambi", re.IGNORECASE)
_ACTIVE: Final = frozenset({"activo", "activa", "active", "isactive", "enabled", "habilitado", "vigente"})
_DELETED: Final = frozenset({"eliminado", "eliminada", "borrado", "deleted", "isdeleted", "removed"})
_MIN_SIMILARITY: Final = 0.8
_MIN_SHARE: Final = 0.5
_UNQUOTED: Final = re.compile(r"[A-Za-z_][\w.-]*")
_COMMENT_COLUMN: Final = 44
_MAX_FIELDS_OF_OTHERS: Final = 8

ACL: Final = "+@all -@admin -@dangerous +info +client|setname +client|setinfo +cluster|slots +cluster|info"


class _Mapped:
    """How the fields of one kind are found in a collection."""

    def __init__(self, kind: Kind, survey: Survey) -> None:
        paths = [path for path in survey.fields if "[]" not in path]
        self.kind = kind
        self.same = {name: path for name in kind.fields if (path := _same(name, paths))}
        self.similar = {
            name: path for name in kind.fields if name not in self.same and (path := _similar(name, paths))
        }

    @property
    def share(self) -> float:
        """The share of the kind's fields that the collection has; 0 without the field that names its entries."""
        there = self.same.keys() | self.similar.keys()
        named = self.kind.name_field is None or self.kind.name_field in there
        return len(there) / len(self.kind.fields) if named and self.kind.fields else 0.0


def propose(database: str, surveys: Sequence[Survey]) -> str:
    """The YAML of a settings file, with comments."""
    chosen, others = [], []
    for survey in surveys:
        kinds = [_Mapped(KINDS[tipo], survey) for tipo in sorted(survey.tipos & KINDS.keys())]
        best = max((_Mapped(kind, survey) for kind in KINDS.values()), key=lambda mapped: mapped.share)
        if kinds or best.share >= _MIN_SHARE:
            chosen.append((survey, kinds or [best]))
        else:
            others.append(survey)
    lines = [
        f"# A proposal of `etl init` for {printable(database)}, by a sample of {counted(len(surveys), 'collection')}.",
        "# Edit it; then: etl try COLLECTION, etl doctor, etl sync, etl verify COLLECTION.",
        *(f"#\n# {title}\n#   {command}" for title, command in _commands(database, chosen)),
        "",
        "mongo:",
        _line(
            f"  database: {_text(database)}",
            "the address with its password: ETL_MONGO__URI, and ETL_REDIS__URL",
        ),
        "",
        "collections:",
        *(line for survey, kinds in chosen for line in _collection(survey, kinds)),
    ]
    if others:
        lines += ["  # No kind fits these:", *map(_other, others)]
    return "\n".join(lines) + "\n"


def acl() -> str:
    """The command that creates a Redis user with the required rights, for all families."""
    keys = sorted({f"~{family.prefix}*" for family in FAMILIES.values()} | {"~etl:*", "~{*"})
    return f"ACL SETUSER etl on >PASSWORD {' '.join(keys)} {ACL}"


def _commands(database: str, chosen: Sequence[tuple[Survey, list[_Mapped]]]) -> Iterator[tuple[str, str]]:
    for survey, _ in chosen:
        field = _timestamp(survey)
        if field is not None and not indexes.candidates(survey.indexes, field):
            remedy = indexes.missing(f"{database}.{survey.name}", field).remedy or ""
            yield f"In mongosh, the index by which {printable(survey.name)} is read:", printable(remedy)
    yield "In Redis, a user with no more rights than needed:", acl()


def _collection(survey: Survey, kinds: Sequence[_Mapped]) -> Iterator[str]:
    yield _line(f"  - name: {_text(survey.name)}", f"about {counted(survey.documents, 'document')}")
    mapped = {}
    if not survey.tipos & KINDS.keys():
        rest = ", ".join(tipo for tipo in KINDS if tipo != kinds[0].kind.tipo)
        guess = _line("", f"its fields are similar; the other kinds: {rest}").lstrip()
        if "tipo" in survey.fields:  # with other values
            mapped["tipo"] = f"{{$literal: {kinds[0].kind.tipo}}}", guess
        else:
            yield f"    {f'tipo: {kinds[0].kind.tipo}':{_COMMENT_COLUMN - 4}}{guess}"
    field = _timestamp(survey)
    if field is None:
        yield _line("    # timestamp_field: ?", "no date found; name the one that every write sets")
    else:
        types = "" if survey.fields[field]["date"] == survey.sampled else f"{_types(survey, field)}; "
        yield _line(f"    timestamp_field: {_text(field)}", f"{types}check that every write sets it")
    root = (field or "updated_at").partition(".")[0]
    for name, path in (item for kind in kinds for item in kind.same.items()):
        if path != name != root:
            mapped[name] = _text("$" + path), f"# {_types(survey, path)}"
    notes = [*_notes(survey, kinds)]
    if mapped or notes:
        yield "    fields:" if mapped else "    # fields:"
    yield from (
        f"{f'      {name}: {path}':{_COMMENT_COLUMN}}{comment}" for name, (path, comment) in mapped.items()
    )
    yield from notes


def _notes(survey: Survey, kinds: Sequence[_Mapped]) -> Iterator[str]:
    for mapped in kinds:
        for name in mapped.kind.fields:
            if name in mapped.similar:
                path = mapped.similar[name]
                yield _line(f"      # {name}: {_text('$' + path)}", f"similar; {_types(survey, path)}")
            elif name not in mapped.same:
                yield _line(
                    f"      # {name}: ?", "not found; leave it out where it is optional: docs/contract.md"
                )
    for path, types in survey.fields.items():
        last = _normalized(path.rpartition(".")[2])
        if "[]" in path or set(types) - {"bool", "null"} or path == "eliminado":
            continue
        if last in _ACTIVE:
            yield _line(f"      # eliminado: {{$not: [{_text('$' + path)}]}}", "false removes the keys")
        elif last in _DELETED:
            yield _line(f"      # eliminado: {_text('$' + path)}", "true removes the keys")
    inner: dict[str, list[str]] = {}
    for path in survey.fields:
        array, is_array, name = path.rpartition("[].")
        if is_array and "." not in name and "[]" not in array:
            inner.setdefault(array, []).append(name)
    wanted = {name for mapped in kinds for name in mapped.kind.fields}
    for array, names in inner.items():
        if array not in wanted:
            fields = ", ".join(f"{name}: {_text('$$t.' + name)}" for name in names)
            yield f"      # FIELD: {{$map: {{input: {_text('$' + array)}, as: t, in: {{{fields}}}}}}}"


def _other(survey: Survey) -> str:
    fields = [path for path in survey.fields if "." not in path and path != "_id"]
    more = f" and {len(fields) - _MAX_FIELDS_OF_OTHERS} more" if len(fields) > _MAX_FIELDS_OF_OTHERS else ""
    text = f"about {counted(survey.documents, 'document')}; {', '.join(fields[:_MAX_FIELDS_OF_OTHERS])}{more}"
    return _line(f"  # - name: {_text(survey.name)}", text)


def _timestamp(survey: Survey) -> str | None:
    """The date field that every write probably sets: an indexed one first, then one with a fitting name."""
    dates = [path for path, types in survey.fields.items() if types.get("date", 0) > survey.sampled / 2]
    indexed = [path for path in dates if indexes.candidates(survey.indexes, path)]
    named = [path for path in dates if _UPDATED.search(path.rpartition(".")[2])]
    ordered = [*(["updated_at"] if "updated_at" in dates else []), *indexed, *sorted(named, key=len)]
    return next(iter(ordered), None)


def _same(name: str, paths: Sequence[str]) -> str | None:
    """The path of the field with this name, at any depth, apart from case and underscores."""
    if name in paths:
        return name
    fitting = [
        path
        for path in paths
        if _normalized(name) in {_normalized(path), _normalized(path.rpartition(".")[2])}
    ]
    return min(fitting, key=lambda path: (path.count("."), path), default=None)


def _similar(name: str, paths: Sequence[str]) -> str | None:
    spelling = {_normalized(path): path for path in reversed(paths)}
    close = get_close_matches(_normalized(name), spelling, n=1, cutoff=_MIN_SIMILARITY)
    return spelling[close[0]] if close else None


def _normalized(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _types(survey: Survey, path: str) -> str:
    types = survey.fields[path]
    return f"{' or '.join(sorted(types))} in {sum(types.values())} of {survey.sampled}"


def _text(text: str) -> str:
    """A text as YAML."""
    plain = _UNQUOTED.fullmatch(text.lstrip("$")) and text.lower() not in {
        "true",
        "false",
        "null",
        "yes",
        "no",
        "on",
        "off",
    }
    return text if plain else dumps(text)


def _line(setting: str, comment: str) -> str:
    return f"{setting:{_COMMENT_COLUMN}}# {printable(comment)}"
