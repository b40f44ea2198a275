"""Numbers and names as a reader wants them on the page."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from retrac.attribution.calibration import SHARE, Calibration
from retrac.attribution.methods import methods
from retrac.interval import Interval

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def method_name(method: str) -> str:
    """Return the name under which a method is known."""
    return methods()[method].title if method in methods() else method


def exponent(values: Iterable[float]) -> int:
    """Return the power of ten of the largest magnitude, to be written once for all values."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return math.floor(math.log10(largest)) if largest > 0 else 0


def power(exponent: int) -> str:
    """Write a power of ten: -4 -> 10⁻⁴."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def signed(value: float, exponent: int) -> str:
    """Write a score in units of its power of ten, with a real minus sign."""
    mantissa = value * 10.0**-exponent
    return f"{mantissa:+.2f}".replace("-", "−")


def error(value: float, exponent: int) -> str:
    """Write a score's standard error in the score's power of ten."""
    return f"±\u00a0{value * 10.0**-exponent:.2f}"


def sure(certain: int, repeatability: float, listed: int) -> str:
    """Say how sure a list is."""
    count = round(repeatability * listed)
    belong = {
        0: f"None of these {listed} is very likely to belong here",
        1: f"1 of these {listed} very likely belongs here",
        listed: f"All of these {listed} very likely belong here",
    }.get(certain, f"{certain} of these {listed} very likely belong here")
    again = {0: "hardly any", listed: "nearly all"}.get(count, f"about {count}")
    return f"{belong}. A repeat with other random draws would show {again} of them again."


def believed(calibration: Calibration | None, window: Sequence[int]) -> str:
    """Say whether a derivative through a window of epochs can be believed, and why."""
    if calibration is None:
        return (
            "Whether this can be believed is not known: the window was not replayed. Leave out "
            "--calibration-sets 0."
        )
    found, slope = calibration.correlation, calibration.slope
    sets = calibration.replayed.shape[1]
    seen = (
        f"epochs {window[0]} to {window[1]} were replayed {sets} times, each without a random "
        f"{percent(SHARE)} of the samples, and what was foretold of the queries’ losses "
        f"correlates {within(found)} with what happened"
    )
    if calibration.believed:
        size = f"changes were {within(slope)} times as large as foretold"
        return f"This can be believed: {seen}; {size}."
    return (
        f"NOT TO BE BELIEVED: {seen}. Training is not smooth enough over this window for a "
        "derivative to say what happens without a sample. A shorter window may help, or a training "
        "with larger batches or a lower learning rate."
    )


def within(interval: Interval) -> str:
    """Write a number with its interval."""
    low, high = (f"{value:.2f}".replace("-", "−") for value in (interval.low, interval.high))
    return f"{interval.value:.2f}".replace("-", "−") + f" ({low} to {high})"


def first_ten(calibration: Calibration) -> str:
    """Say what became of queries without their own first ten."""
    foretold, replayed = calibration.first_foretold.mean(), calibration.first_replayed.mean()
    unit = exponent((foretold, replayed))
    return (
        "Replayed without the first ten of its list, a query’s loss rose by "
        f"{signed(replayed, unit)} · {power(unit)} on average; {signed(foretold, unit)} · "
        f"{power(unit)} was foretold."
    )


def continued(sentence: str) -> str:
    """A sentence as the end of another one."""
    return sentence[:1].lower() + sentence[1:]


def timesteps(values: Sequence[int]) -> str:
    """Write the timesteps of a sample's replayed events; of many, how many and their range."""
    if not values:
        return "no event"
    # Spaces and dashes that do not break, so that narrow columns wrap at the comma only.
    if len(values) <= 2:
        return f"t\u00a0=\u00a0{', '.join(map(str, values))}"
    span = f"{min(values)}\u2060–\u2060{max(values)}"
    return f"t\u00a0=\u00a0{span}, {len(values)}\u00a0events"


def tally(labels: Iterable[str]) -> tuple[list[tuple[str, int]], int]:
    """Return the three most frequent labels and their counts, and how many have other labels."""
    counts = Counter(label for label in labels if label)
    return counts.most_common(3), sum(sorted(counts.values())[:-3])


def percent(share: float) -> str:
    """Write a share of one in percent."""
    return f"{100 * share:.0f} %"


def facts(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten settings into rows of (name, value) for a table."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += facts(value, prefix=f"{name}: ")
        elif isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
            for number, each in enumerate(value, start=1):
                rows += facts(each, prefix=f"{name} {number}: ")
        else:
            rows.append((name, fact(value)))
    return rows


def fact(value: Any) -> str:
    """Write one value of the settings."""
    if value is None or value == "" or value == []:
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value}"
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(fact(item) for item in value)
    return str(value)
