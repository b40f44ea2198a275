"""What the page says, as plain values: every number in it comes from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrac.attribution.attribution import Attribution
from retrac.attribution.methods import Draws, methods
from retrac.attribution.ranking import Ranked
from retrac.attribution.uncertainty import CERTAIN
from retrac.report import wording


@dataclass(frozen=True)
class Ranking:
    """One query's lists under one method.

    Attributes:
        method: its key.
        exponent: the power of ten in which scores are written.
        proponents: the highest scores, highest first.
        opponents: the lowest, lowest first; none where a score below zero says nothing.
        errors: of the listed samples; empty where they cannot be told.
        certain: proponents that very likely belong there.
        sure: how sure the proponents are, in words; empty where that cannot be told.
        by_events: whether the method adds up the events of training.
    """

    method: str
    exponent: int
    proponents: Sequence[Ranked]
    opponents: Sequence[Ranked]
    errors: Mapping[int, float]
    certain: frozenset[int]
    sure: str
    by_events: bool


@dataclass(frozen=True)
class Query:
    """A query and its lists; an empty label means that it has none."""

    index: int
    id: str
    label: str
    rankings: Sequence[Ranking]


@dataclass(frozen=True)
class Influential:
    """A generally influential sample, and the number of queries it serves."""

    sample: int
    id: str
    label: str
    queries: int


@dataclass(frozen=True)
class Summary:
    """One method over all queries.

    Attributes:
        method: its key.
        influential: the generally influential samples, those that serve most queries first.
        unique: distinct samples among all proponents, as a share of them.
        same_label: share of the labelled queries' proponents that have the query's label, or None.
        sure: how sure lists are; None where errors cannot be told.
    """

    method: str
    influential: Sequence[Influential]
    unique: float
    same_label: float | None
    sure: "Sure | None"


@dataclass(frozen=True)
class Sure:
    """How sure one method's scores are.

    Attributes:
        errors: `[Q, N]`, of the scores.
        membership: `[Q, N]`, probability of belonging to the list.
        certain: `[Q]`, how many of a query's proponents very likely belong to its list.
        repeatability: `[Q]`, share of them that a repeat would give again.
        halves: mean rank correlation of scores between halves, stepped up to the whole.
    """

    errors: np.ndarray
    membership: np.ndarray
    certain: np.ndarray
    repeatability: np.ndarray
    halves: float


def certainties(attribution: Attribution, k: int) -> dict[str, Sure]:
    """How sure scores and first k are, of each method whose errors can be told."""
    found = {}
    for method in attribution.sure:
        scores = attribution.uncertainty(method)
        first = scores.first(k)
        found[method] = Sure(
            scores.errors,
            first.membership,
            first.certain,
            first.repeatability,
            float(scores.halves.mean()),
        )
    return found


def queries(attribution: Attribution, k: int, sure: Mapping[str, Sure]) -> list[Query]:
    """Collect every query with its top k proponents and opponents under each method."""
    data = attribution.dataset
    return [
        Query(
            index=index,
            id=str(data["query_id"].values[index]),
            label=str(data["query_label"].values[index]),
            rankings=[
                _ranking(attribution, index, method, k, sure.get(method))
                for method in attribution.methods
            ],
        )
        for index in range(data.sizes["query"])
    ]


def summaries(
    attribution: Attribution, asked: Sequence[Query], k: int, sure: Mapping[str, Sure]
) -> list[Summary]:
    """Sum up each method over the queries."""
    return [
        _summary(
            method,
            _influential(attribution, method, k),
            [(query.label, query.rankings[place].proponents) for query in asked],
            sure.get(method),
        )
        for place, method in enumerate(attribution.methods)
    ]


def estimated(attribution: Attribution) -> str:
    """Say how scores were estimated; nothing where all of them are exact."""
    index = attribution.config.get("index")
    if not index:
        return _sketched(attribution)
    numbers = f"{int(index['size']):,}"
    if index["kind"] == "recorded":
        return (
            f"Gradients were recorded while training, each in {numbers} numbers, at the weights "
            "that every visit really met. Scores are estimates from these."
        )
    told = f"Scores are estimates from an index that holds each gradient in {numbers} numbers."
    exact = int(attribution.dataset["exact"].values.sum())
    again = f" Those of the {exact:,} best candidates are exact, by methods that add up events."
    return told + (again if exact else "")


def _sketched(attribution: Attribution) -> str:
    """Say which methods compare sketches of gradients, and that the others do not."""
    features = attribution.config.get("features", ())
    sketched = [each for each in features if each.get("layer_numbers")]
    names = [wording.method_name(name) for each in sketched for name in each["methods"]]
    if not names:
        return ""
    told = (
        f"Scores of {' and '.join(names)} come from sketches: of each tensor of weights, gradients "
        f"are compared in about {sketched[0]['layer_numbers']:,} numbers."
    )
    exact = " Those of the other methods are of whole gradients."
    return told + (exact if len(names) < len(attribution.methods) else "")


def shown(asked: Sequence[Query], summed: Sequence[Summary]) -> set[int]:
    """Return the samples whose pictures the page needs."""
    lists = (
        part for query in asked for r in query.rankings for part in (r.proponents, r.opponents)
    )
    listed = {entry.sample for part in lists for entry in part}
    return listed.union(entry.sample for summary in summed for entry in summary.influential)


def gate(attribution: Attribution, method: str) -> tuple[str, ...]:
    """Say whether a method that looks at a window can be believed; nothing of the others."""
    window = attribution.window(method)
    if window is None:
        return ()
    calibration = attribution.calibration(method)
    told = wording.believed(calibration, window)
    return (told,) if calibration is None else (told, wording.first_ten(calibration))


def doubted(attribution: Attribution) -> frozenset[str]:
    """The methods whose window was replayed and went otherwise than they foretold."""
    found = set[str]()
    for method in attribution.methods:
        calibration = attribution.calibration(method)
        if calibration is not None and not calibration.believed:
            found.add(method)
    return frozenset(found)


def _ranking(
    attribution: Attribution, query: int, method: str, k: int, sure: Sure | None
) -> Ranking:
    proponents = attribution.proponents(query, method, k)
    opponents = attribution.opponents(query, method, k) if attribution.signed(method) else []
    listed = [*proponents, *opponents]
    errors: dict[int, float] = {}
    certain: frozenset[int] = frozenset()
    told = ""
    if sure is not None:
        errors = {entry.sample: float(sure.errors[query, entry.sample]) for entry in listed}
        likely = sure.membership[query] >= CERTAIN
        certain = frozenset(entry.sample for entry in proponents if likely[entry.sample])
        told = wording.sure(len(certain), float(sure.repeatability[query]), len(proponents))
    return Ranking(
        method=method,
        exponent=wording.exponent(entry.score for entry in listed),
        proponents=proponents,
        opponents=opponents,
        errors=errors,
        certain=certain,
        sure=told,
        by_events=method not in methods() or methods()[method].draws is Draws.INTERVALS,
    )


def _influential(attribution: Attribution, method: str, k: int) -> list[Influential]:
    ids, labels = (attribution.dataset[name].values for name in ("sample_id", "sample_label"))
    counts = attribution.generally_influential(method, k)
    return [Influential(s, str(ids[s]), str(labels[s]), count) for s, count in counts.items()]


def _summary(
    method: str,
    influential: Sequence[Influential],
    lists: Sequence[tuple[str, Sequence[Ranked]]],
    sure: Sure | None,
) -> Summary:
    entries = [(label, entry) for label, ranked in lists for entry in ranked]
    same = [entry.label == label for label, entry in entries if label and entry.label]
    return Summary(
        method=method,
        influential=influential,
        unique=len({entry.sample for _, entry in entries}) / max(1, len(entries)),
        same_label=sum(same) / len(same) if same else None,
        sure=sure,
    )
