"""The rows of the table, in its order."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.cost import baselines, ours, peers
from benchmarks.cost.workload import Work, Workload
from retrac.diffusion.measurements import loss, output_mean, output_square


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: on the command line.
        title: in the table.
        per: what its cost is counted by, such as "sample" or "draw".
        prepare: does what is done once before very many of those, which is not timed.
        note: what must be known to read its cost.
    """

    name: str
    title: str
    per: str
    prepare: Callable[[Workload], Work]
    note: str = ""


PLAIN = Row("plain", "plain training step", "sample", baselines.plain_step)
"""What the costs of all others are relative to."""

REFERENCE = Row("ours", "ours, exact scores", "sample", ours.scoring_pass)
"""What the scores of all others are compared with."""

ROWS = {
    row.name: row
    for row in (
        PLAIN,
        Row(
            "floor",
            "no weight gradients",
            "sample",
            baselines.input_gradient,
            "forward, and backward to the input alone: what any gradient needs",
        ),
        REFERENCE,
        Row(
            "vmap",
            "torch.func.vmap",
            "sample",
            baselines.vmapped_scores,
            "whole gradients of a chunk of samples at a time",
        ),
        Row(
            "dattri",
            "dattri TracIn",
            "sample",
            peers.dattri,
            "one method; whole gradients of a chunk of samples at a time, and each time "
            "those of all queries again; its random projection, on by default, is off; timed "
            "on a part",
        ),
        Row(
            "captum",
            "captum TracInCP",
            "sample",
            peers.captum,
            "one method; a backward pass for each sample; in batches of one, which is fastest; "
            "timed on a part",
        ),
        Row(
            "captum-fast",
            "captum TracInCP, sample-wise",
            "sample",
            peers.captum_sample_wise,
            "one method; whole gradients of a chunk of samples at a time; leaves normalisation "
            "layers out without saying so",
        ),
        Row(
            "naive",
            "naive loop, scores",
            "sample",
            baselines.naive_scores,
            "as published: a batch of one, autograd, one inner product per query and method; "
            "timed on a part",
        ),
        Row("ours-query", "ours, exact query gradient", "draw", ours.query_gradient),
        Row("ours-sketch", "ours, sketches for an index", "sample", ours.sketching_pass),
        Row(
            "ours-feature",
            "ours, features of the loss",
            "draw",
            partial(ours.feature_pass, (loss,)),
            "256 numbers of each layer's weights",
        ),
        Row(
            "ours-features",
            "ours, features of loss and output",
            "draw",
            partial(ours.feature_pass, (loss, output_mean, output_square)),
            "three measurements: one forward pass, three backward",
        ),
        Row(
            "ours-recorded",
            "ours, recorded training step",
            "sample",
            ours.recorded_step,
            "all of a plain training step, and a sketch of every sample",
        ),
        Row(
            "naive-query",
            "naive loop, query gradient",
            "draw",
            baselines.naive_query,
            "as published: a batch of one for each draw, autograd; timed on a part",
        ),
    )
}
