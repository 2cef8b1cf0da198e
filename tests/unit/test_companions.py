"""The names of the ETL's own keys."""

from etl.cache.keys import Companions, companions


def test_each_is_named_after_the_published_key() -> None:
    """`{etl:last_sync:<collection>}:<role>`, so that all are in one slot of a Redis Cluster."""
    own = companions("promptContent")
    assert own.published == "etl:last_sync:promptContent"
    assert own.checkpoint == "{etl:last_sync:promptContent}:checkpoint"
    for role, key in own._asdict().items():
        assert key in {own.published, f"{{{own.published}}}:{role}"}
    assert len(set(own)) == len(Companions._fields)


def test_a_name_cannot_break_out_of_its_braces() -> None:
    """Nor can two collections meet on one key."""
    assert companions("a}b").checkpoint == "{etl:last_sync:a%7Db}:checkpoint"
    assert not set(companions("a")) & set(companions("a:lease"))
