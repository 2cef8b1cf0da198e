from contextlib import closing

from etl.verify.findings import Ledger, Note, Suspect


def test_what_is_noted_last_of_a_key_counts() -> None:
    """Each key once."""
    with closing(Ledger()) as ledger:
        ledger.note([Note("a", None, "1"), Note("b", "matching"), Note("a", "expired")])
        ledger.note([Note("b", None, "2"), Note("c", "absent")])
        assert [ledger.count(name) for name in ("matching", "expired", "absent")] == [0, 1, 1]
        assert ledger.some("expired", 5) == ["a"]
        assert [*ledger.suspects(5)] == [[Suspect("b", "2")]]
        assert ledger.unknown(["a", "b", "c", "d", "e"]) == ["d", "e"]


def test_suspects_are_given_once_while_they_are_judged() -> None:
    """Though what is found of them is noted meanwhile."""
    with closing(Ledger()) as ledger:
        ledger.note(Note(f"k{n}", None, "1") for n in range(2500))
        met: list[str] = []
        for suspects in ledger.suspects(100):
            met += [suspect.key for suspect in suspects]
            ledger.note(Note(suspect.key, "different") for suspect in suspects)
        assert (len(met), len(set(met)), ledger.count("different")) == (2500, 2500, 2500)
        assert len(ledger.unknown([f"k{n}" for n in range(3000)])) == 500
