"""The methods: the table of contents of the project.

A method is a record of choices that do not depend on one another. The engine runs once for each
feature (`Method.feature`), so methods that share one share the pass. Help, tables, reports and
benchmarks take names, titles and descriptions from here; there is no other list. Other packages
add methods by the entry point `retrac.methods` (docs/adding-a-method.md). Free of torch's import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from enum import Enum
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import NamedTuple

from retrac.attribution.metrics import DampedKernel, Freedom, Identity, Metric, UnitNorm
from retrac.attribution.parameter_metrics import Curvature, ParameterMetric, SecondMoment
from retrac.diffusion.measurements import Measurement, loss, output_mean, output_square
from retrac.errors import RetracError, unknown
from retrac.gradients.weights import Weight, inverse_norm, one

ENTRY_POINT = "retrac.methods"
"""Group of entry points; each names a `Method`."""


PLAIN = Identity()


class Draws(Enum):
    """At which timesteps and noises gradients are taken, and which of them make one feature."""

    INTERVALS = "intervals"
    """Samples at the events of training before each checkpoint, each weighted by its learning rate
    over its batch size, and queries at the plan. Checkpoints add up."""
    LAST = "last"
    """Samples at their last events before the last checkpoint, each counting alike, and queries at
    the plan."""
    TIMESTEPS = "timesteps"
    """Samples and queries alike, at the last checkpoint: a mean for each bin of timesteps, each
    image with noises of its own. Samples at the events of training where those are known, else at
    a grid."""
    AVERAGE = "average"
    """Samples and queries alike, at the last checkpoint: one mean over a grid."""
    WINDOW = "window"
    """Samples at every step of a window of the training, which is differentiated, and queries at
    the plan, at its end."""


class Feature(NamedTuple):
    """What methods have in common that share a pass."""

    draws: Draws
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Method:
    """One method of attribution.

    Attributes:
        name: on the command line and in results.
        title: for people.
        about: what it computes, in a sentence or two.
        estimand: what exactly it foretells, in one sentence.
        source: paper and equation.
        formula: of a score, in the words of docs/methods.md; g is a gradient, q a query, i a
            sample, t a timestep.
        measurements: of which gradients are compared; their scores add up.
        draws: where gradients are taken.
        weight: of each gradient, by its norm.
        metric: between features of queries and of samples.
        parameter_metric: of directions, where no features are made.
        unit_samples: whether each sample's feature is brought to unit norm.
        signed: whether a score below zero says that a sample did the opposite.
        foretold: how well it foretold what retrained models lost, in one sentence; empty where
            nobody measured it.
    """

    name: str
    title: str
    about: str
    estimand: str
    source: str
    formula: str = ""
    measurements: tuple[Measurement, ...] = (loss,)
    draws: Draws = Draws.INTERVALS
    weight: Weight = one
    metric: Metric = PLAIN
    parameter_metric: ParameterMetric | None = None
    unit_samples: bool = False
    signed: bool = True
    foretold: str = ""

    def __post_init__(self) -> None:
        by_events = self.draws in (Draws.INTERVALS, Draws.LAST)
        of_features = self.metric != PLAIN or self.measurements != (loss,) or self.unit_samples
        if by_events and of_features:
            raise ValueError(
                f"{self.name}: a metric of features, unit samples, and outputs, need features"
            )
        if not by_events and (self.parameter_metric is not None or self.weight is not one):
            raise ValueError(f"{self.name}: a metric of parameters, and weights, need events")

    @property
    def separable(self) -> bool:
        """Whether features of some layers can be scored without those of others."""
        return self.metric.separable and not self.unit_samples

    @property
    def identity(self) -> str:
        """What decides its scores beside draws and parameters: tells methods of one name apart."""
        measured = "+".join(measurement.__name__ for measurement in self.measurements)
        metrics = (self.metric, self.parameter_metric)
        chosen = [repr(each) if is_dataclass(each) else type(each).__name__ for each in metrics]
        unit = ", unit samples" if self.unit_samples else ""
        draws, weight = self.draws.value, self.weight.__name__
        return f"{measured} at {draws}, weight {weight}, {', '.join(chosen)}{unit}"

    @property
    def feature(self) -> Feature:
        """What it has in common with methods that share its pass."""
        return Feature(self.draws, self.measurements)


EVENT_ESTIMAND = (
    "By how much this very training's visits to the sample lowered the query's loss, to first "
    "order in the learning rate and under plain gradient descent."
)
EXPECTED_ESTIMAND = (
    "By how much a training that had the sample more often would be expected to fit the query "
    "better, whatever else chance decides."
)

_RECORDS = (
    Method(
        name="kernel-retrac",
        title="Kernel ReTrac",
        about="Compares gradients of the loss and of the output at each timestep and in each layer "
        "on its own, and discounts directions that most samples share: a damped kernel for each. "
        "Samples are looked at where training met them, if that is known, else at other draws.",
        estimand=EXPECTED_ESTIMAND,
        source="ours; one kernel for each timestep and layer of TRAK's (Park et al. 2023, eq. 13)",
        formula="Σ over measurements of the mean over timesteps t and layers l of "
        "g_q (GᵀG + λI)⁻¹ g_i, with G the samples’ gradients at t in l and λ = 0.1 tr(GGᵀ)/N",
        measurements=(loss, output_mean, output_square),
        draws=Draws.TIMESTEPS,
        metric=DampedKernel(0.1, by_layer=True),
        signed=False,
    ),
    Method(
        name="retrac",
        title="ReTrac",
        about="Adds up, over the checkpoints, the product of the sample’s gradient at its events "
        "with the query’s, every gradient normalised to length one first. Only the direction of a "
        "gradient counts, so a large gradient norm does not lift a sample into every list.",
        estimand=EVENT_ESTIMAND,
        source="Xie et al. 2024, eq. 7",
        formula="Σ_checkpoints ⟨mean_t ḡ_q,t/‖ḡ_q,t‖, Σ_visits (η/B) g_i/‖g_i‖⟩",
        weight=inverse_norm,
    ),
    Method(
        name="tracin",
        title="TracIn",
        about="The same sum with gradients as they are. Samples with a large gradient norm, caused "
        "by the timestep at which they happened to be trained, can top every query’s list: the "
        "dominating norm effect.",
        estimand=EVENT_ESTIMAND,
        source="Xie et al. 2024, eq. 4; Pruthi et al. 2020",
        formula="Σ_checkpoints ⟨mean_t ḡ_q,t, Σ_visits (η/B) g_i⟩",
    ),
    Method(
        name="trak",
        title="TRAK",
        about="One damped kernel between gradients of the loss, each a mean over timesteps.",
        estimand=EXPECTED_ESTIMAND,
        source="Park et al. 2023, eq. 13; for diffusion models Zheng et al. 2024, section 3",
        formula="ḡ_q (GᵀG + λI)⁻¹ ḡ_i, with ḡ means over timesteps, G those of all samples, and λ "
        "such that 25 degrees of freedom are left",
        draws=Draws.AVERAGE,
        metric=DampedKernel(Freedom(25)),
        signed=False,
    ),
    Method(
        name="d-trak",
        title="D-TRAK",
        about="One damped kernel between gradients of the output’s mean square, each a mean over "
        "timesteps.",
        estimand=EXPECTED_ESTIMAND,
        source="Zheng et al. 2024, section 4",
        formula="as TRAK, with g the gradient of the output’s mean square",
        measurements=(output_square,),
        draws=Draws.AVERAGE,
        metric=DampedKernel(Freedom(25)),
        signed=False,
    ),
    Method(
        name="ekfac",
        title="EK-FAC influence",
        about="The product of the sample’s gradient with the query’s, which is first divided by "
        "the curvature of the loss: by how much the optimum would move. The curvature is that of "
        "the squared error, also where the run’s loss is absolute.",
        estimand="By how much the query’s loss at the optimum would rise if the sample counted a "
        "little less, to first order.",
        source="Mlodozeniec et al. 2024 (arXiv 2410.13850), eq. 5 to 7",
        formula="⟨(H + λI)⁻¹ mean_t ḡ_q,t, mean_visits g_i⟩ at the last checkpoint, with H by "
        "Kronecker factors and λ = 0.1 of a layer’s mean eigenvalue",
        draws=Draws.LAST,
        parameter_metric=Curvature(),
    ),
    Method(
        name="adam",
        title="TracIn with Adam’s metric",
        about="TracIn, with each number of the query’s gradient divided by the root of its mean "
        "square, as Adam divides its steps.",
        estimand="By how much this very training’s visits to the sample lowered the query’s loss, "
        "to first order in the learning rate and under Adam without momentum.",
        source="after Pruthi et al. 2020, eq. 1, and Kingma and Ba 2015, algorithm 1",
        formula="Σ_checkpoints ⟨mean_t ḡ_q,t/(√v̂ + ε), Σ_visits (η/B) g_i⟩",
        parameter_metric=SecondMoment(),
    ),
    Method(
        name="cosine",
        title="Cosine",
        about="The cosine between gradients of the loss, each a mean over timesteps.",
        estimand="Nothing exactly: how alike the query’s and the sample’s pull on the weights are.",
        source="Charpiat et al. 2019, eq. 6",
        formula="⟨ḡ_q, ḡ_i⟩/(‖ḡ_q‖ ‖ḡ_i‖), with ḡ means over timesteps",
        draws=Draws.AVERAGE,
        metric=UnitNorm(),
        unit_samples=True,
    ),
    Method(
        name="unrolled",
        title="Unrolled",
        about="The derivative of the query’s loss through a window of this very training: the "
        "query’s gradient is carried back through every step, optimiser and moving average "
        "included. Replays of the window without random samples show whether it can be believed.",
        estimand="By how much the query’s loss would rise at the end of the window, had the sample "
        "not been in it, to first order, with everything else as it was.",
        source="Ilyas and Engstrom 2025 (arXiv 2504.16430), section 2",
        formula="−∂m(θ_T)/∂w_i, with θ_{t+1} = U(θ_t, Σ w_i ∇ℓ_i(θ_t)/B) for every step t of the "
        "window and m the query’s mean loss over the plan",
        draws=Draws.WINDOW,
    ),
)

NAMES = tuple(method.name for method in _RECORDS)
"""Of those of this package, for help."""

DEFAULT = ("kernel-retrac", "retrac", "tracin")
"""Names of those that people get who do not choose."""

FOR_OUTLIERS = "tracin"
"""Ranks samples by themselves: its gradients keep the size that betrays an outlier."""

LDS: Mapping[str, float] = {
    "kernel-retrac": 0.76,
    "retrac": 0.28,
    "tracin": 0.26,
    "trak": 0.57,
    "d-trak": 0.56,
    "ekfac": 0.72,
    "adam": 0.51,
    "cosine": 0.26,
}
"""Of methods as they come, on the benchmark (docs/leaderboard.md)."""
LDS_BOUND, LDS_PIXELS = 0.84, 0.67
"""The most that is possible there, and nearness in pixels."""


def _foretold(name: str) -> str:
    if name not in LDS:
        return ""
    return (
        "As it comes, on the benchmark of retrained models, its sums over halves of the training "
        f"set correlate {LDS[name]:.2f} with the models’ losses ({LDS_BOUND:.2f} is the most that "
        f"is possible; nearness in pixels: {LDS_PIXELS:.2f})."
    )


@cache
def methods() -> MappingProxyType[str, Method]:
    """All methods by name, those of other packages among them.

    Raises:
        RetracError: another package's entry point is no method, or has a name that is taken.
    """
    found = {each.name: replace(each, foretold=_foretold(each.name)) for each in _RECORDS}
    for point in entry_points(group=ENTRY_POINT):
        try:
            method = point.load()
        except Exception as error:  # whatever another package does when it is imported
            raise RetracError(
                f"the method {point.name!r} of another package cannot be loaded ({error!r}): mend "
                f"or uninstall {point.value.partition(':')[0]!r}"
            ) from error
        if not isinstance(method, Method):
            raise RetracError(f"the entry point {point.value!r} must name a retrac.Method")
        if method.name in found:
            raise RetracError(f"two methods are called {method.name!r}: uninstall {point.value!r}")
        found[method.name] = method
    return MappingProxyType(found)


def method_named(name: str) -> Method:
    """One of them.

    Raises:
        RetracError: there is none of that name.
    """
    if name not in methods():
        raise unknown("method", name, methods())
    return methods()[name]


def weight_named(name: str) -> Weight:
    """The weight of gradients of that name, of some method.

    Raises:
        RetracError: there is none.
    """
    weights = {method.weight.__name__: method.weight for method in methods().values()}
    if name not in weights:
        raise unknown("weight", name, weights)
    return weights[name]


def by_events() -> tuple[Method, ...]:
    """Those that add up the events of training in plain products: an index serves them, and they
    score a sample on itself."""
    return tuple(
        method
        for method in methods().values()
        if method.draws is Draws.INTERVALS and method.parameter_metric is None
    )


def by_feature(chosen: Sequence[Method]) -> dict[Feature, list[Method]]:
    """Methods in groups that share a pass, in the order of the first of each."""
    groups: dict[Feature, list[Method]] = {}
    for method in chosen:
        groups.setdefault(method.feature, []).append(method)
    return groups
