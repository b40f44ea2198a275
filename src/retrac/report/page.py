"""An attribution as one self-contained HTML page."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from retrac.attribution.attribution import FIRST, Attribution
from retrac.attribution.methods import methods
from retrac.data.images import Pixels, to_pil
from retrac.errors import RetracError
from retrac.evaluation.section import Section
from retrac.files import write_whole
from retrac.report import content, evaluation, figures, wording
from retrac.report.canvas import svg_uri

FILTERS = (
    *("signed", "error", "power", "timesteps", "tally", "percent", "method_name", "continued"),
)
"""Functions of `wording` that the template may call."""
FEWEST_COLUMNS, MOST_COLUMNS = 4, 6
"""Pictures side by side."""
PIXEL_ART = 64
"""Images up to this size are shown with sharp pixels when enlarged."""
PAPER = 255
FADED = 5
"""Pixels that do not count are so many times nearer to the paper's white."""
DRAWN = ("sampled", "fresh")
"""How the runs' word on their events begins where they are not those of training."""
WAY = "trajectory/seed-"
"""How the ids of queries begin that were looked at along the sampler's way."""
THUMBNAIL = 256
"""Larger images are scaled down to this size, to keep the page light."""


def write_report(
    attribution: Attribution, path: str | Path, k: int = FIRST, sections: Sequence[Section] = ()
) -> Path:
    """Write the page: per query its top k proponents under the first method, and how sure they are.

    Opponents and the other methods are folded below them. Further down stands what metrics found,
    if they are given (`retrac evaluate`).

    Raises:
        RetracError: k below 1, `path` is a folder, no space left, or no permission.
    """
    path = Path(path)
    if k < 1:
        raise RetracError(f"cannot report the top {k} samples: k must be at least 1")
    if path.is_dir():
        raise RetracError(f"{path} is a folder: give the file to write, as {path / 'report.html'}")
    html = render(attribution, k, sections)
    with write_whole(path) as temporary:
        # File names may hold bytes that are not text; a page with a "?" is better than none.
        temporary.write_bytes(html.encode("utf-8", errors="replace"))
    return path


def render(attribution: Attribution, k: int, sections: Sequence[Section] = ()) -> str:
    """Return the page as HTML."""
    sure = content.certainties(attribution, k)
    asked = content.queries(attribution, k, sure)
    summed = content.summaries(attribution, asked, k, sure)
    height, width = attribution.dataset["query_image"].shape[-2:]
    config = dict(attribution.config)
    run = config.pop("run", {})
    data, names = attribution.dataset, attribution.methods
    k = min(k, data.sizes["sample"])
    return _template().render(
        headline=_headline(len(asked)),
        samples=data.sizes["sample"],
        k=k,
        columns=min(max(FEWEST_COLUMNS, math.ceil(k / 2)), MOST_COLUMNS),
        queries=asked,
        summaries=summed,
        served={s.method: {entry.sample: entry.queries for entry in s.influential} for s in summed},
        sure={method: attribution.groups(method) for method in attribution.sure},
        unsure=[
            method
            for method in names
            if method not in attribution.sure and attribution.window(method) is None
        ],
        lead=names[0],
        gates={method: content.gate(attribution, method) for method in names},
        doubted=content.doubted(attribution),
        unknown=[
            method
            for method in names
            if attribution.window(method) and attribution.calibration(method) is None
        ],
        opposed=[method for method in names if attribution.signed(method)],
        unopposed=[method for method in names if not attribution.signed(method)],
        methods=methods(),
        estimated=content.estimated(attribution),
        pictures=_pictures(attribution, content.shown(asked, summed)),
        blank=_png_uri(Image.new("LA", (width, height))),
        width=width,
        height=height,
        pixels=max(width, height) <= PIXEL_ART,
        norms=_norms(attribution),
        parts=evaluation.parts(sections),
        along=bool(asked) and all(query.id.startswith(WAY) for query in asked),
        masked="query_mask" in data,
        drawn=next((way for way in DRAWN if str(run.get("events", "")).startswith(way)), ""),
        run=wording.facts(run),
        settings=wording.facts(config),
    )


def _norms(attribution: Attribution) -> dict[str, str]:
    """The figure of gradient norms; empty where no method looked at events one by one."""
    if not attribution.dataset.sizes["visit"] or not attribution.dataset.sizes["timestep"]:
        return {}
    return {
        "uri": svg_uri(figures.norms_by_timestep(attribution)),
        "alt": f"Gradient norm against timestep. {figures.norm_finding(attribution)}.",
    }


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("retrac", "report"),
        autoescape=True,  # ids and labels come from file names: never trust them
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(wording, name) for name in FILTERS})
    return environment.get_template("template.html.j2")


def _headline(queries: int) -> str:
    images = "this image" if queries == 1 else f"these {queries} images"
    return f"Which training images taught the model {images}?"


def _pictures(attribution: Attribution, samples: set[int]) -> dict[str, str]:
    """Map the style class of each picture to its URI, so that each is in the page only once."""
    data = attribution.dataset
    asked = {f"q{index}": image for index, image in enumerate(_asked(data))}
    stored = {
        f"s{int(sample)}": image
        for sample, image in zip(data["shown"].values, data["sample_image"].values, strict=True)
        if int(sample) in samples
    }
    return {name: _picture_uri(image) for name, image in (asked | stored).items()}


def _asked(data: xr.Dataset) -> Pixels:
    """The queries' images, faded where they do not count."""
    images: Pixels = data["query_image"].values
    if "query_mask" not in data:
        return images
    faded = PAPER - (PAPER - images) // FADED
    return np.where(data["query_mask"].values[:, None], images, faded)


def _picture_uri(pixels: Pixels) -> str:
    image = to_pil(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return _png_uri(image)


def _png_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
