"""A settings file for a database that exists: which collections fit a kind, and by which mapping; pure.

Guesses from names. A field that has the name of the contract, but for case and underscores, is mapped; one that is only
similar is proposed in a comment, as is everything that a person has to decide.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from json import dumps
from typing import Final

from etl.mongo import indexes
from etl.mongo.survey import Survey
from etl.text import printable
from schemas.documents import FAMILIES, KINDS
from schemas.documents.kind import Kind

_UPDATED: Final = re.compile("updat|modif|actualiz|chang|cambi", re.IGNORECASE)
_ACTIVE: Final = frozenset({"activo", "activa", "active", "isactive", "enabled", "habilitado", "vigente"})
_DELETED: Final = frozenset({"eliminado", "eliminada", "borrado", "deleted", "isdeleted", "removed"})
_SIMILAR: Final = 0.8
_FITS: Final = 0.5
_PLAIN: Final = re.compile(r"[A-Za-z_][\w.-]*")
_COMMENT: Final = 44  # column
_OTHERS_FIELDS: Final = 8

ACL: Final = "+@all -@admin -@dangerous +info +client|setname +client|setinfo +cluster|slots +cluster|info"


class _Mapped:
    """How the fields of one kind are found in a collection."""

    def __init__(self, kind: Kind, found: Survey) -> None:
        paths = [path for path in found.fields if "[]" not in path]
        self.kind = kind
        self.same = {name: path for name in kind.fields if (path := _same(name, paths))}
        self.similar = {
            name: path for name in kind.fields if name not in self.same and (path := _similar(name, paths))
        }

    @property
    def share(self) -> float:
        """The share of the kind's fields that are there; 0 without what names its entries."""
        there = self.same.keys() | self.similar.keys()
        named = self.kind.name_field is None or self.kind.name_field in there
        return len(there) / len(self.kind.fields) if named and self.kind.fields else 0.0


def propose(database: str, surveys: Sequence[Survey]) -> str:
    """The YAML of a settings file, with comments."""
    chosen, others = [], []
    for one in surveys:
        kinds = [_Mapped(KINDS[tipo], one) for tipo in sorted(one.tipos & KINDS.keys())]
        best = max((_Mapped(kind, one) for kind in KINDS.values()), key=lambda mapped: mapped.share)
        if kinds or best.share >= _FITS:
            chosen.append((one, kinds or [best]))
        else:
            others.append(one)
    lines = [
        f"# A proposal of `etl init` for {printable(database)}, by a sample of its {len(surveys)} collections.",
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
        *(line for one, kinds in chosen for line in _collection(one, kinds)),
    ]
    if others:
        lines += ["  # No kind fits these:", *map(_other, others)]
    return "\n".join(lines) + "\n"


def acl() -> str:
    """The command that makes a Redis user with the rights that are needed, for the families that there are."""
    keys = sorted({f"~{family.prefix}*" for family in FAMILIES.values()} | {"~etl:*", "~{*"})
    return f"ACL SETUSER etl on >PASSWORD {' '.join(keys)} {ACL}"


def _commands(database: str, chosen: Sequence[tuple[Survey, list[_Mapped]]]) -> Iterator[tuple[str, str]]:
    for one, _ in chosen:
        field = _timestamp(one)
        if field is not None and not indexes.candidates(one.indexes, field):
            remedy = indexes.missing(f"{database}.{one.name}", field).remedy or ""
            yield f"In mongosh, the index by which {printable(one.name)} is read:", printable(remedy)
    yield "In Redis, a user with no more rights than needed:", acl()


def _collection(one: Survey, kinds: Sequence[_Mapped]) -> Iterator[str]:
    yield _line(f"  - name: {_text(one.name)}", f"about {one.documents:,} documents")
    mapped = {}
    if not one.tipos & KINDS.keys():
        rest = ", ".join(tipo for tipo in KINDS if tipo != kinds[0].kind.tipo)
        guess = _line("", f"its fields are similar; the other kinds: {rest}").lstrip()
        if "tipo" in one.fields:  # with other values
            mapped["tipo"] = f"{{$literal: {kinds[0].kind.tipo}}}", guess
        else:
            yield f"    {f'tipo: {kinds[0].kind.tipo}':{_COMMENT - 4}}{guess}"
    field = _timestamp(one)
    if field is None:
        yield _line("    # timestamp_field: ?", "no date found; name the one that every write sets")
    else:
        types = "" if one.fields[field]["date"] == one.sampled else f"{_types(one, field)}; "
        yield _line(f"    timestamp_field: {_text(field)}", f"{types}check that every write sets it")
    root = (field or "updated_at").partition(".")[0]
    for name, path in (item for kind in kinds for item in kind.same.items()):
        if path != name != root:
            mapped[name] = _text("$" + path), f"# {_types(one, path)}"
    notes = [*_notes(one, kinds)]
    if mapped or notes:
        yield "    fields:" if mapped else "    # fields:"
    yield from (f"{f'      {name}: {path}':{_COMMENT}}{comment}" for name, (path, comment) in mapped.items())
    yield from notes


def _notes(one: Survey, kinds: Sequence[_Mapped]) -> Iterator[str]:
    for mapped in kinds:
        for name in mapped.kind.fields:
            if name in mapped.similar:
                path = mapped.similar[name]
                yield _line(f"      # {name}: {_text('$' + path)}", f"similar; {_types(one, path)}")
            elif name not in mapped.same:
                yield _line(
                    f"      # {name}: ?", "not found; leave it out where it is optional: docs/contract.md"
                )
    for path, types in one.fields.items():
        last = _bare(path.rpartition(".")[2])
        if "[]" in path or set(types) - {"bool", "null"} or path == "eliminado":
            continue
        if last in _ACTIVE:
            yield _line(f"      # eliminado: {{$not: [{_text('$' + path)}]}}", "false removes the keys")
        elif last in _DELETED:
            yield _line(f"      # eliminado: {_text('$' + path)}", "true removes the keys")
    inner: dict[str, list[str]] = {}
    for path in one.fields:
        array, is_array, name = path.rpartition("[].")
        if is_array and "." not in name and "[]" not in array:
            inner.setdefault(array, []).append(name)
    wanted = {name for mapped in kinds for name in mapped.kind.fields}
    for array, names in inner.items():
        if array not in wanted:
            fields = ", ".join(f"{name}: {_text('$$t.' + name)}" for name in names)
            yield f"      # FIELD: {{$map: {{input: {_text('$' + array)}, as: t, in: {{{fields}}}}}}}"


def _other(one: Survey) -> str:
    fields = [path for path in one.fields if "." not in path and path != "_id"]
    more = f" and {len(fields) - _OTHERS_FIELDS} more" if len(fields) > _OTHERS_FIELDS else ""
    text = f"about {one.documents:,} documents; {', '.join(fields[:_OTHERS_FIELDS])}{more}"
    return _line(f"  # - name: {_text(one.name)}", text)


def _timestamp(one: Survey) -> str | None:
    """The date that every write sets, most likely: one with an index, then one that is called so."""
    dates = [path for path, types in one.fields.items() if types.get("date", 0) > one.sampled / 2]
    indexed = [path for path in dates if indexes.candidates(one.indexes, path)]
    named = [path for path in dates if _UPDATED.search(path.rpartition(".")[2])]
    ordered = [*(["updated_at"] if "updated_at" in dates else []), *indexed, *sorted(named, key=len)]
    return next(iter(ordered), None)


def _same(name: str, paths: Sequence[str]) -> str | None:
    """The field that has this name, at the top or deeper, but for case and underscores."""
    if name in paths:
        return name
    fitting = [path for path in paths if _bare(name) in {_bare(path), _bare(path.rpartition(".")[2])}]
    return min(fitting, key=lambda path: (path.count("."), path), default=None)


def _similar(name: str, paths: Sequence[str]) -> str | None:
    spelling = {_bare(path): path for path in reversed(paths)}
    close = get_close_matches(_bare(name), spelling, n=1, cutoff=_SIMILAR)
    return spelling[close[0]] if close else None


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _types(one: Survey, path: str) -> str:
    types = one.fields[path]
    return f"{' or '.join(sorted(types))} in {sum(types.values())} of {one.sampled}"


def _text(text: str) -> str:
    """A text as YAML."""
    plain = _PLAIN.fullmatch(text.lstrip("$")) and text.lower() not in {
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
    return f"{setting:{_COMMENT}}# {printable(comment)}"
