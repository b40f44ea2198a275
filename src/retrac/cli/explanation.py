"""The tables of `retrac explain`."""

from rich.console import Console
from rich.table import Table

from retrac.attribution.explanation import Entry, Explanation
from retrac.attribution.methods import by_events

ROUTES = {
    "contract": "inputs times directions, norms from Gram matrices: no gradient is formed",
    "write out": "the gradient in tiles, each contracted before the next takes its place",
    "project": "both sides to the few channels of the sketch, then multiplied",
    "vector": "a bias or a scale: one product for all of them together",
    "left out": "too small a part of the gradient to get a number of the sketch",
    "not used": "the forward pass does without it",
}


def print_explanation(found: Explanation, in_full: bool) -> None:
    """Print what a pass does, by block of the network or in full by parameter, and its times."""
    console = Console()
    entries = found.entries if in_full else found.blocks
    console.print(f"{_title(found)}\n", highlight=False)
    console.print(_entries(found, entries, "parameter" if in_full else "block"))
    console.print()
    for route in dict.fromkeys(entry.route for entry in found.entries):
        console.print(f"[bold]{route}[/]: {ROUTES[route]}", highlight=False)
    console.print(f"\n{_coverage(found)}\n", highlight=False)
    console.print(_times(found))
    console.print(f"\n{_speed(found)}", highlight=False)


def _entries(found: Explanation, entries: list[Entry], name: str) -> Table:
    table = Table(
        *(name, "layer", "route"),
        box=None,
        header_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in ("numbers", "posi-\ntions", "Gop", "MB", "ms\npredicted", "ms\nmeasured"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in (*entries, found.total):
        several = f" ×{entry.parameters}" if entry.parameters > 1 else ""
        table.add_row(
            entry.name,
            entry.layer + several,
            entry.route,
            _short(entry.numbers),
            _range(entry.positions),
            f"{entry.work.operations / 1e9:.2f}",
            f"{entry.work.bytes / 1e6:.1f}",
            _ms(found.machine.seconds(entry.work)),
            _ms(entry.seconds),
            style="bold" if entry.name == "all" else None,
        )
    return table


def _times(found: Explanation) -> Table:
    """The pass, part by part, beside a training step."""
    times, predicted = found.times, found.machine.seconds(found.total.work)
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("one pass")
    for column in ("ms\npredicted", "ms\nmeasured", "of a train-\ning step"):
        table.add_column(column, justify="right")
    for part, told, taken in (
        ("forward and backward without weight gradients", None, times.bare),
        ("layers' gradients taken apart by sample", None, times.taped - times.bare),
        ("contraction", predicted, times.whole - times.taped),
        ("the pass", times.taped + predicted, times.whole),
        ("a training step: forward and backward", None, times.training),
    ):
        table.add_row(
            part, "" if told is None else _ms(told), _ms(taken), f"{taken / times.training:.2f} ×"
        )
    return table


def _title(found: Explanation) -> str:
    """What pass it is."""
    if found.sketch:
        return f"A sketching pass over {found.batch} samples: {found.sketch:,} numbers for each."
    title = (
        f"An exact pass over {found.batch} samples, for {found.queries} queries by "
        f"{' and '.join(method.name for method in by_events())}."
    )
    if found.queries < found.asked:
        title += f" More queries do not fit into the memory budget: {found.asked} take several."
    return title


def _coverage(found: Explanation) -> str:
    numbers = sum(parameter.numbers for parameter in found.parameters)
    rules = ", ".join(
        f"{part:,} by {'vmap, for want of a rule,' if rule == 'by_vmap' else rule}"
        for rule, part in sorted(found.rules.items(), key=lambda item: -item[1])
    )
    left = f" {found.frozen:,} more do not count: --parameters." if found.frozen else ""
    return f"Covered: {len(found.parameters)} parameters of {numbers:,} numbers: {rules}.{left}"


def _speed(found: Explanation) -> str:
    machine = found.machine
    return (
        f"Predicted with {machine.operations / 1e9:.0f} Gop/s, measured in the largest layer's "
        f"product, and {machine.bytes / 1e9:.1f} GB/s, in reading directions from memory."
    )


def _range(positions: tuple[int, int]) -> str:
    fewest, most = positions
    return "" if most == 0 else str(most) if fewest == most else f"{fewest}–{most}"


def _short(numbers: int) -> str:
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if numbers >= size:
            return f"{numbers / size:.1f}{unit}"
    return str(numbers)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}"
