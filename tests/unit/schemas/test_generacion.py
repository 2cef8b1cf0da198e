"""`tipo: generacion`: messages ordered, metadata replaced, requests queued, all under the campaign's lock."""

from typing import Any

import pytest
from bson import Decimal128, Int64

from schemas.documents import project
from schemas.families import CAMPAIGN_MESSAGES, GENERATION_META
from schemas.operations import Enqueue, Evict, FieldError, Keep, Projection, Put, Reject
from tests.factories import decoded, generacion

SEGMENT = "043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89"[:32]  # SHA-256 of "s"
MESSAGES = f"ai:campaign_messages:c:{SEGMENT}"
META = f"ai:generation:meta:c:{SEGMENT}"
LOCK = "lock:content_generation:c"


def _message(numero: Any, **changes: Any) -> dict[str, Any]:
    return {"numero": numero, "texto": "t", "tono": "casual"} | changes


def _members(*messages: dict[str, Any]) -> list[str]:
    outcome = project(generacion(mensajes=list(messages)), "generacion")
    assert isinstance(outcome, Projection), outcome
    put = outcome.entries[0]
    assert isinstance(put, Put)
    return list(put.read)


def _errors(**changes: Any) -> list[FieldError]:
    outcome = project(generacion(**changes), "generacion")
    assert isinstance(outcome, Reject), outcome
    return list(outcome.errors)


def test_members_are_ordered_by_numero() -> None:
    """The list is in the order of `numero`, as numbers: 2 before 10, -1 before 0."""
    numbers = [10, 2, Int64(2**63 - 1), -1, 3.0, Decimal128("4")]
    written = _members(*(_message(numero) for numero in numbers))
    assert [member.partition(",")[0] for member in written] == [
        '{"numero":-1',
        '{"numero":2',
        '{"numero":3',
        '{"numero":4',
        '{"numero":10',
        '{"numero":9223372036854775807',
    ]


def test_a_member_is_the_json_of_the_contract() -> None:
    """Three fields, in the contract's order whatever the document's; others beside them are dropped."""
    message = {"tono": "casual", "api_key": "sk", "texto": '¿"Trail" en\nChirripó?\u2028', "numero": 1}
    assert _members(message) == ['{"numero":1,"texto":"¿\\"Trail\\" en\\nChirripó?\u2028","tono":"casual"}']


def test_controls_in_texto_are_escaped() -> None:
    """No control character stands bare in a member."""
    assert _members(_message(1, texto="\x00\x1f\t")) == [
        '{"numero":1,"texto":"\\u0000\\u001f\\t","tono":"casual"}'
    ]


def test_texto_may_be_empty() -> None:
    """An empty message is the generator's affair."""
    assert _members(_message(1, texto="")) == ['{"numero":1,"texto":"","tono":"casual"}']


@pytest.mark.parametrize("mensajes", [[], None, {}, "x", {"0": _message(1)}], ids=repr)
def test_generado_has_messages(mensajes: Any) -> None:
    """A list with at least one message, or nothing is written."""
    assert [error.field for error in _errors(mensajes=mensajes)] == ["mensajes"]


def test_a_numero_stands_once() -> None:
    """Two messages of one `numero` have no order: the document is invalid, 1 and 1.0 included."""
    assert _errors(mensajes=[_message(1), _message(2), _message(1.0)]) == [
        FieldError("mensajes", "should hold each numero once")
    ]


@pytest.mark.parametrize("numero", [True, "1", 1.5, None, float("nan"), Decimal128("1E+6000")], ids=repr)
def test_numero_is_a_whole_number(numero: Any) -> None:
    """Nothing else has a place in the order."""
    assert [error.field for error in _errors(mensajes=[_message(1), _message(numero)])] == [
        "mensajes.1.numero"
    ]


@pytest.mark.parametrize("field", ["texto", "tono"])
@pytest.mark.parametrize("value", [None, 1, True, ["t"], b"t"], ids=repr)
def test_texto_and_tono_are_text(field: str, value: Any) -> None:
    """A message that is not text is refused, with its place in the list."""
    assert [error.field for error in _errors(mensajes=[_message(1, **{field: value})])] == [
        f"mensajes.0.{field}"
    ]


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"other": 1}, {"tokens_total": None}, {"tokens_total": None, "api_key": "sk"}],
    ids=repr,
)
def test_metadata_without_contract_fields_evicts_the_old(metadata: Any) -> None:
    """A generation without metadata never stands beside the metadata of the one before it."""
    outcome = project(generacion(metadata=metadata), "generacion")
    assert isinstance(outcome, Projection)
    assert outcome.entries[1] == Evict("ai:generation:meta", META)
    assert project(generacion(), "generacion") == outcome


def test_metadata_keeps_the_order_of_the_contract() -> None:
    """The fields that are there, in the contract's order; null ones are left out."""
    metadata = {"segmentos_procesados": 3, "tiempo_total_ms": None, "api_key": "sk", "tokens_total": 1240}
    outcome = project(generacion(metadata=metadata), "generacion")
    assert isinstance(outcome, Projection)
    put = outcome.entries[1]
    assert put == Put("ai:generation:meta", META, {"tokens_total": "1240", "segmentos_procesados": "3"})
    assert list(put.value) == ["tokens_total", "segmentos_procesados"]


@pytest.mark.parametrize("metadata", [[], "x", 1, [{}]], ids=repr)
def test_metadata_is_a_document(metadata: Any) -> None:
    """Metadata of another shape is refused."""
    assert [error.field for error in _errors(metadata=metadata)] == ["metadata"]


@pytest.mark.parametrize(
    ("prioridad", "queue"), [("alta", "alta"), ("media", "media"), ("baja", "baja"), (None, "media")]
)
def test_pendiente_is_queued_by_its_priority(prioridad: Any, queue: str) -> None:
    """A request goes to the queue of its priority, `media` by default, and leaves the messages as they are."""
    document = generacion(estado="pendiente", segmento="¿s?", prioridad=prioridad)
    item = '{"campana_id":"c","segmento":"¿s?"}'
    parts = {"campana_id": "c", "segmento": "¿s?"}
    assert project(document, "generacion") == Projection(
        (
            Enqueue("queue:ai_generation", f"queue:ai_generation:{queue}", item),
            Keep("ai:campaign_messages", CAMPAIGN_MESSAGES.key(**parts)),
            Keep("ai:generation:meta", GENERATION_META.key(**parts)),
        ),
        lock=LOCK,
    )


def test_pendiente_needs_no_messages_and_no_priority() -> None:
    """What a request needs is its identity."""
    document = {"campana_id": "c", "segmento": "s", "estado": "pendiente"}
    outcome = project(document, "generacion")
    assert isinstance(outcome, Projection)
    assert outcome.entries[0].key == "queue:ai_generation:media"


@pytest.mark.parametrize("prioridad", ["urgente", "ALTA", 1, ["alta"]], ids=repr)
def test_an_unknown_prioridad_is_rejected(prioridad: Any) -> None:
    """No queue is invented."""
    assert [error.field for error in _errors(estado="pendiente", prioridad=prioridad)] == ["prioridad"]


@pytest.mark.parametrize("estado", ["", "Generado", "borrado", 1, True, ["generado"]], ids=repr)
def test_an_unknown_estado_is_rejected(estado: Any) -> None:
    """A state nobody defined is not guessed."""
    assert _errors(estado=estado) == [FieldError("estado", "should be one of generado, pendiente, archivado")]


def test_archivado_evicts_both_and_needs_its_identity_only() -> None:
    """An archived generation leaves neither messages nor metadata."""
    expected = Projection(
        (Evict("ai:campaign_messages", MESSAGES), Evict("ai:generation:meta", META)), lock=LOCK
    )
    assert project(generacion(estado="archivado"), "generacion") == expected
    assert project({"campana_id": "c", "segmento": "s", "estado": "archivado"}, "generacion") == expected
    assert project(generacion(estado="archivado", mensajes=1, metadata=[]), "generacion") == expected


@pytest.mark.parametrize("estado", ["generado", "pendiente", "archivado", None])
@pytest.mark.parametrize("eliminado", [False, True])
def test_every_generacion_respects_the_lock_of_its_campaign(*, estado: Any, eliminado: bool) -> None:
    """Whatever it asks for, it waits while its campaign is being generated."""
    outcome = project(generacion(campana_id="a:b", estado=estado, eliminado=eliminado), "generacion")
    assert isinstance(outcome, Projection)
    assert outcome.lock == "lock:content_generation:a%3Ab"


def test_projecting_changes_nothing_in_the_document() -> None:
    """The document is read, not sorted or filled in: it may be projected again."""
    document = decoded(generacion(mensajes=[_message(2), _message(1)], metadata={"tokens_total": 1.0}))
    before = decoded(document)
    project(document, "generacion")
    assert document == before
    assert list(document) == list(before)
