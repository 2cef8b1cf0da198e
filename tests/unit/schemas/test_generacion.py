"""`tipo: generacion`: messages, metadata, requests, and the lock of the campaign."""

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
    """As numbers: 2 before 10."""
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


def test_member_is_json_with_the_three_contract_fields() -> None:
    """In the order of the contract; other fields are dropped."""
    message = {"tono": "casual", "api_key": "sk", "texto": '¿"Trail" en\nChirripó?\u2028', "numero": 1}
    assert _members(message) == ['{"numero":1,"texto":"¿\\"Trail\\" en\\nChirripó?\u2028","tono":"casual"}']


def test_control_characters_in_texto_are_escaped() -> None:
    assert _members(_message(1, texto="\x00\x1f\t")) == [
        '{"numero":1,"texto":"\\u0000\\u001f\\t","tono":"casual"}'
    ]


def test_texto_may_be_empty() -> None:
    assert _members(_message(1, texto="")) == ['{"numero":1,"texto":"","tono":"casual"}']


@pytest.mark.parametrize("mensajes", [[], None, {}, "x", {"0": _message(1)}], ids=repr)
def test_generado_without_messages_is_rejected(mensajes: Any) -> None:
    assert [error.field for error in _errors(mensajes=mensajes)] == ["mensajes"]


def test_duplicate_numero_is_rejected() -> None:
    """Two messages with one `numero` have no order; 1 and 1.0 are equal."""
    assert _errors(mensajes=[_message(1), _message(2), _message(1.0)]) == [
        FieldError("mensajes", "should hold each numero once")
    ]


@pytest.mark.parametrize("numero", [True, "1", 1.5, None, float("nan"), Decimal128("1E+6000")], ids=repr)
def test_numero_must_be_a_whole_number(numero: Any) -> None:
    assert [error.field for error in _errors(mensajes=[_message(1), _message(numero)])] == [
        "mensajes.1.numero"
    ]


@pytest.mark.parametrize("field", ["texto", "tono"])
@pytest.mark.parametrize("value", [None, 1, True, ["t"], b"t"], ids=repr)
def test_texto_and_tono_must_be_text(field: str, value: Any) -> None:
    """The error has the index of the message."""
    assert [error.field for error in _errors(mensajes=[_message(1, **{field: value})])] == [
        f"mensajes.0.{field}"
    ]


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"other": 1}, {"tokens_total": None}, {"tokens_total": None, "api_key": "sk"}],
    ids=repr,
)
def test_metadata_without_contract_fields_evicts_the_key(metadata: Any) -> None:
    """Messages must not be shown beside the metadata of an earlier generation."""
    outcome = project(generacion(metadata=metadata), "generacion")
    assert isinstance(outcome, Projection)
    assert outcome.entries[1] == Evict("ai:generation:meta", META)
    assert project(generacion(), "generacion") == outcome


def test_metadata_keeps_the_order_of_the_contract() -> None:
    """Fields that are null are left out."""
    metadata = {"segmentos_procesados": 3, "tiempo_total_ms": None, "api_key": "sk", "tokens_total": 1240}
    outcome = project(generacion(metadata=metadata), "generacion")
    assert isinstance(outcome, Projection)
    put = outcome.entries[1]
    assert put == Put("ai:generation:meta", META, {"tokens_total": "1240", "segmentos_procesados": "3"})
    assert list(put.value) == ["tokens_total", "segmentos_procesados"]


@pytest.mark.parametrize("metadata", [[], "x", 1, [{}]], ids=repr)
def test_metadata_must_be_a_document(metadata: Any) -> None:
    assert [error.field for error in _errors(metadata=metadata)] == ["metadata"]


@pytest.mark.parametrize(
    ("prioridad", "queue"), [("alta", "alta"), ("media", "media"), ("baja", "baja"), (None, "media")]
)
def test_pendiente_is_queued_by_its_priority(prioridad: Any, queue: str) -> None:
    """`media` by default; the messages are kept."""
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


def test_pendiente_needs_only_its_identity() -> None:
    document = {"campana_id": "c", "segmento": "s", "estado": "pendiente"}
    outcome = project(document, "generacion")
    assert isinstance(outcome, Projection)
    assert outcome.entries[0].key == "queue:ai_generation:media"


@pytest.mark.parametrize("prioridad", ["urgente", "ALTA", 1, ["alta"]], ids=repr)
def test_unknown_prioridad_is_rejected(prioridad: Any) -> None:
    assert [error.field for error in _errors(estado="pendiente", prioridad=prioridad)] == ["prioridad"]


@pytest.mark.parametrize("estado", ["", "Generado", "borrado", 1, True, ["generado"]], ids=repr)
def test_unknown_estado_is_rejected(estado: Any) -> None:
    assert _errors(estado=estado) == [FieldError("estado", "should be one of generado, pendiente, archivado")]


def test_archivado_evicts_both_keys_and_needs_only_its_identity() -> None:
    expected = Projection(
        (Evict("ai:campaign_messages", MESSAGES), Evict("ai:generation:meta", META)), lock=LOCK
    )
    assert project(generacion(estado="archivado"), "generacion") == expected
    assert project({"campana_id": "c", "segmento": "s", "estado": "archivado"}, "generacion") == expected
    assert project(generacion(estado="archivado", mensajes=1, metadata=[]), "generacion") == expected


@pytest.mark.parametrize("estado", ["generado", "pendiente", "archivado", None])
@pytest.mark.parametrize("eliminado", [False, True])
def test_every_generacion_names_the_lock_of_its_campaign(*, estado: Any, eliminado: bool) -> None:
    outcome = project(generacion(campana_id="a:b", estado=estado, eliminado=eliminado), "generacion")
    assert isinstance(outcome, Projection)
    assert outcome.lock == "lock:content_generation:a%3Ab"


def test_project_does_not_change_the_document() -> None:
    document = decoded(generacion(mensajes=[_message(2), _message(1)], metadata={"tokens_total": 1.0}))
    before = decoded(document)
    project(document, "generacion")
    assert document == before
    assert list(document) == list(before)
