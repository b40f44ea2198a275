"""The page says what the attribution says, loads nothing, and trusts no name."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from retrac.attribution.attribution import Attribution
from retrac.attribution.methods import methods
from retrac.errors import RetracError
from retrac.report.page import render, write_report

HOSTILE = ["<script>alert(1)</script>", '"quotes" onerror="x', "{{ 7 * 7 }}", "</style><u>&amp;'"]
VOID = {"meta", "link", "img", "br"}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["Node"] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str, **attributes: str) -> list["Node"]:
        """Every descendant with this tag and these attributes, in the order of the page."""
        found = []
        for child in self.children:
            if child.tag == tag and attributes.items() <= child.attributes.items():
                found.append(child)
            found += child.all(tag, **attributes)
        return found

    def words(self) -> str:
        return " ".join(f"{self.text} {' '.join(c.words() for c in self.children)}".split())


class Page(HTMLParser):
    """A page as a tree; a tag that is not closed properly is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Node("root")
        self.open = [self.root]
        self.feed(html)
        assert self.open == [self.root], f"not closed: {[node.tag for node in self.open]}"

    def handle_starttag(self, tag, attrs):
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].text += data


def tree(html: str) -> Node:
    return Page(html).root


def listed(page: Node, query: int) -> list[list[Node]]:
    """The entries of a query's lists: per method proponents, then opponents."""
    section = next(s for s in page.all("section") if s.attributes.get("id") == f"query-{query}")
    return [ranks.all("li") for ranks in section.all("ol")]


@pytest.mark.parametrize("channels", [1, 3])
def test_lists_are_those_of_the_attribution(make_attribution, channels):
    attribution = make_attribution(channels=channels)
    page = tree(render(attribution, k=5))
    for query in range(4):
        expected = [
            ask(query, method, 5)
            for method in ("tracin", "retrac")
            for ask in (attribution.proponents, attribution.opponents)
        ]
        for entries, ranked in zip(listed(page, query), expected, strict=True):
            scores = [float(entry.all("data")[0].attributes["value"]) for entry in entries]
            assert scores == [sample.score for sample in ranked]
            for entry, sample in zip(entries, ranked, strict=True):
                assert sample.id in entry.words()
                assert f"label {sample.label}" in entry.words()
                assert all(str(timestep) in entry.words() for timestep in sample.timesteps)
                assert f"s{sample.sample}" in entry.all("img")[0].attributes["class"].split()


def test_page_loads_nothing(make_attribution):
    html = render(make_attribution(), k=5)
    page = tree(html)
    sources = [tag.attributes["src"] for tag in page.all("img")]
    links = [tag.attributes["href"] for tag in page.all("a") + page.all("link")]
    styles = re.findall(r"url\(([^)]*)\)", html)
    assert all(source.startswith("data:image/") for source in sources + styles)
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "@import" not in html
    assert not page.all("script")


def test_links_lead_somewhere(make_attribution):
    page = tree(render(make_attribution(), k=5))
    ids = {node.attributes.get("id") for tag in ("section", "h2") for node in page.all(tag)}
    assert {link.attributes["href"][1:] for link in page.all("a")} <= ids


def test_every_image_has_a_text(make_attribution):
    images = tree(render(make_attribution(), k=5)).all("img")
    assert len(images) > 4 * 2 * 2 * 5
    assert all(image.attributes.get("alt") for image in images)


def test_every_picture_is_in_the_page_once(make_attribution):
    html = render(make_attribution(), k=5)
    styles = re.findall(r"url\(([^)]*)\)", html)
    assert len(styles) == len(set(styles)) <= 4 + 40


def test_names_are_escaped(make_attribution):
    attribution = make_attribution(
        query_ids=HOSTILE,
        query_labels=HOSTILE,
        sample_ids=HOSTILE * 10,
        sample_labels=HOSTILE * 10,
        config={"run": {h: h for h in HOSTILE}, **{h: [h] for h in HOSTILE}},
    )
    html = render(attribution, k=5)
    page = tree(html)
    assert not page.all("script")
    assert not page.all("u")
    assert "49" not in " ".join(node.words() for node in page.all("h2") + page.all("bdi"))
    assert not any("onerror" in tag.attributes for tag in page.all("img") + page.all("span"))
    entry = listed(page, 0)[0][0]
    best = attribution.proponents(0, "tracin", 1)[0]
    assert entry.all("img")[0].attributes["alt"] == f"sample {best.id}, label {best.label}"
    for name in HOSTILE:
        assert name in [cell.text for cell in page.all("th")]
        assert name in [cell.text for cell in page.all("td")]


def test_queries_without_labels(make_attribution):
    unlabelled = render(make_attribution(), k=5)
    labelled = render(make_attribution(query_labels=["0", "1", "2", ""]), k=5)
    assert "Proponents with the label of their query" not in unlabelled
    assert "Proponents with the label of their query" in labelled


def test_share_of_proponents_with_the_label_of_their_query(make_attribution):
    scores = np.zeros((1, 1, 2, 8))
    scores[0, 0, 0, [0, 1, 2, 4]] = 1, 2, 3, 4  # labels 0 0 0 1: three of four
    scores[0, 0, 1, [0, 1, 2, 4]] = 1, 2, 3, 4  # the query has no label: not counted
    attribution = make_attribution(
        queries=2, samples=8, methods=["retrac"], checkpoints=[1], scores=scores,
        query_labels=["0", ""], sample_labels=list("00001111"),
    )  # fmt: skip
    page = tree(render(attribution, k=4))
    rows = {row.all("th")[0].words(): row.all("td") for row in page.all("tr") if row.all("th")}
    assert rows["Proponents with the label of their query"][0].words() == "75 %"
    assert rows["Unique fraction: distinct samples among all top 4 proponents"][0].words() == "50 %"


def test_a_list_counts_all_its_labels(make_attribution):
    labels = [str(each) for each in (0, 0, 1, 1, 2, 2, 3, 4)]
    page = render(make_attribution(queries=1, samples=8, sample_labels=labels), k=8)
    assert "×2, 2&nbsp;of other labels" in page


def test_generally_influential_samples_are_marked(make_attribution):
    scores = np.random.default_rng(0).normal(size=(2, 1, 8, 400))
    scores[0, 0, :3, 7] = 99  # sample 7 tops three of eight lists under TracIn
    attribution = make_attribution(queries=8, samples=400, checkpoints=[1], scores=scores)
    page = tree(render(attribution, k=2))
    tracin, _, retrac, _ = listed(page, 0)
    assert "◆ 3" in tracin[0].words()
    assert not any("◆" in entry.words() for entry in [*tracin[1:], *retrac])
    (summary,) = page.all("section", id="summary")
    (entry,) = summary.all("li")
    assert "digits/7" in entry.words()
    assert "◆ 3 of 8" in entry.words()
    assert "Generally influential under TracIn" in summary.words()
    assert "Generally influential under ReTrac" not in summary.words()


def test_no_generally_influential_samples(make_attribution):
    page = tree(render(make_attribution(queries=1), k=3))
    assert not any("◆" in entry.words() for entry in page.all("li"))
    assert "Generally influential under" not in page.words()


def test_one_method(make_attribution):
    page = tree(render(make_attribution(methods=["retrac"]), k=5))
    assert len(listed(page, 0)) == 2
    assert "TracIn" not in page.words()


def test_a_method_without_a_description(make_attribution):
    (by,) = tree(render(make_attribution(methods=["das"]), k=5)).all("p", **{"class": "note by"})
    assert [name.text for name in by.all("b")] == ["das"] and "It tells" not in by.words()


def test_fewer_samples_than_asked_for(make_attribution):
    page = tree(render(make_attribution(samples=3), k=8))
    assert [len(entries) for entries in listed(page, 0)] == [3, 3, 3, 3]


def test_a_picture_that_is_not_stored(make_attribution):
    page = tree(render(make_attribution(shown=[0]), k=5))
    assert "picture not stored" in page.words()


def test_many_events_are_given_as_a_range(make_attribution):
    attribution = make_attribution(visits=9)
    best = attribution.proponents(0, "tracin", 1)[0]
    words = listed(tree(render(attribution, k=1)), 0)[0][0].words()
    span = f"t = {min(best.timesteps)}–{max(best.timesteps)}, 18 events"
    assert span in words.replace("\u2060", "").replace("\u00a0", " ")


@pytest.mark.parametrize(("score", "written"), [(0, "+0.00"), (np.inf, "+inf")])
def test_scores_without_a_magnitude(make_attribution, score, written):
    assert written in render(make_attribution(scores=np.full((2, 2, 4, 40), score)), k=5)


def test_facts_of_the_run_and_settings(make_attribution):
    page = tree(render(make_attribution(), k=5))
    rows = {row.all("th")[0].words(): row.words() for row in page.all("tr")}
    assert rows["learning rate"] == "learning rate 0.001"
    assert rows["ema"] == "ema –"
    assert rows["plan: noises"] == "plan: noises 4"
    assert all("scope" in cell.attributes for cell in page.all("th"))


def test_without_facts(make_attribution):
    assert tree(render(make_attribution(config={"seed": 0}), k=5))


def test_the_same_attribution_gives_the_same_page(make_attribution):
    assert render(make_attribution(), k=5) == render(make_attribution(), k=5)


def test_large_images_are_scaled_down(make_attribution):
    small, large = (len(render(make_attribution(side=side), k=1)) for side in (256, 512))
    assert large < 1.1 * small


def test_write_report(make_attribution, tmp_path: Path):
    path = tmp_path / "new" / "report.html"
    attribution = make_attribution(sample_ids=["caf\udce9.png"] * 40)  # a name that is not UTF-8
    assert write_report(attribution, path, k=3) == path
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_write_report_refuses(make_attribution, tmp_path: Path):
    (tmp_path / "precious").touch()
    with pytest.raises(RetracError, match="is a folder"):
        write_report(make_attribution(), tmp_path)
    assert (tmp_path / "precious").exists()
    with pytest.raises(RetracError, match="k must be at least 1"):
        write_report(make_attribution(), tmp_path / "report.html", k=0)


def test_estimates_are_told_apart_from_exact_scores(make_attribution):
    assert "Estimated scores" not in render(make_attribution(), 5)
    by_index = make_attribution(config={"index": {"kind": "replayed", "size": 8196, "seed": 0}})
    by_index.dataset.coords["exact"] = ("sample", np.arange(40) < 3)
    page = render(by_index, 5)
    assert "an index that holds each gradient in 8,196 numbers" in page
    assert "Those of the 3 best candidates are exact" in page
    features = [{"methods": ["tracin"], "layer_numbers": 256}]
    sketched = render(make_attribution(config={"features": features}), 5)
    assert "Scores of TracIn come from sketches" in sketched and "about 256 numbers" in sketched
    assert "Those of the other methods are of whole gradients" in sketched
    recorded = make_attribution(config={"index": {"kind": "recorded", "size": 500, "seed": 0}})
    assert "recorded while training, each in 500 numbers" in render(recorded, 5)


def test_errors_stand_beside_scores_and_lists_say_how_sure_they_are(make_attribution):
    attribution = make_attribution()
    page = tree(render(attribution, 8))
    errors = attribution.uncertainty("tracin").errors[0]
    entries = attribution.proponents(0, "tracin", 8)
    for entry, item in zip(entries, listed(page, 0)[0], strict=True):
        (told,) = item.all("span", **{"class": "error"})
        assert told.words() == f"± {1e4 * errors[entry.sample]:.2f}"
    words = page.words()
    assert words.count("of these 8") == 8 and "very likely belong to their list, of 8" in words
    assert "2 of TracIn, 2 of ReTrac" in words


def test_without_errors_the_page_says_so(make_attribution):
    words = tree(render(make_attribution(checkpoints=[5]), 8)).words()
    assert "±" not in words and "of these 8" not in words
    assert "How sure this list is cannot be told" in words
    assert "scores of TracIn and ReTrac may be off by luck cannot be told" in words


def with_kernel(make_attribution, **changes) -> Attribution:
    """Kernel ReTrac, which only has groups of draws and no opponents, before TracIn."""
    queries, samples = 2, 40
    scores = np.random.default_rng(1).normal(size=(2, 1, queries, samples))
    scores[0, 0, :, :3] = 1000  # beyond all doubt
    made = make_attribution(
        queries=queries,
        methods=["kernel-retrac", "tracin"],
        checkpoints=[5],
        scores=scores,
        **changes,
    )
    parts = np.random.default_rng(0).normal(scale=0.01, size=(4, queries, samples))
    parts += scores[0] / 4
    made.dataset["part_kernel-retrac"] = (("group_kernel-retrac", "query", "sample"), parts)
    return made


def test_members_that_very_likely_belong_are_ticked(make_attribution):
    page = tree(render(with_kernel(make_attribution), 5))
    first, others, _ = listed(page, 0)
    ticked = [entry for entry in first if entry.all("span", role="img")]
    assert 3 <= len(ticked) < 5 or "All of these 5" in page.words()
    assert {"digits/0", "digits/1", "digits/2"} <= {e.all("bdi")[-1].text for e in ticked}
    assert f"{len(ticked)} of these 5 very likely belong" in page.words() or len(ticked) == 5
    assert not any(entry.all("span", role="img") for entry in others)


def test_a_method_without_opponents_shows_none(make_attribution):
    attribution = with_kernel(make_attribution)
    page = tree(render(attribution, 5))
    assert len(listed(page, 0)) == 3  # proponents of both, opponents of TracIn
    assert "but not by Kernel ReTrac, where low scores say nothing" in page.words()
    assert "The opposite" not in page.words()


def test_events_stand_only_beside_methods_that_add_them_up(make_attribution):
    kernel, tracin, _ = listed(tree(render(with_kernel(make_attribution), 5)), 0)
    assert not any("t =" in entry.words() for entry in kernel)
    assert all("t =" in entry.words() for entry in tracin)


def test_errors_of_some_methods_only(make_attribution):
    words = tree(render(with_kernel(make_attribution), 5)).words()
    assert "4 of Kernel ReTrac" in words and "scores of TracIn may be off by luck" in words
    assert words.count("of these 5") == 2


def test_methods_that_look_at_no_events(make_attribution):
    plain = with_kernel(make_attribution)
    data = plain.dataset.isel(visit=slice(0), timestep=slice(0)).sel({"method": ["kernel-retrac"]})
    page = tree(render(Attribution(data, plain.config), 5))
    assert not page.all("section", id="norms")
    assert "t, the timestep" not in page.words() and "no event" not in page.words()
    assert len(listed(page, 0)) == 1


def test_methods_say_what_they_tell_and_how_well(make_attribution):
    attribution = with_kernel(make_attribution)
    (section,) = tree(render(attribution, 5)).all("section", id="methods")
    for name in attribution.methods:
        method = methods()[name]
        assert method.title in section.words() and method.about in section.words()
        assert method.estimand[1:] in section.words() and method.foretold in section.words()


def test_the_page_says_what_of_the_queries_counted(make_attribution):
    plain = make_attribution(queries=2)
    along = make_attribution(queries=2, query_ids=("trajectory/seed-0/0000", "trajectory/seed-0/1"))
    masked = make_attribution(queries=2)
    masks = np.zeros((2, 8, 8), bool)
    masks[:, 2:5, 1:7] = True
    masked.dataset["query_mask"] = (("query", "row", "column"), masks)
    told = {"along": "heading for", "masked": "that is not faded counts"}
    for attribution, there in ((plain, ()), (along, ("along",)), (masked, ("masked",))):
        words = tree(render(attribution, k=3)).words()
        for name, phrase in told.items():
            assert (phrase in words) == (name in there)


@pytest.mark.parametrize(
    ("sign", "told"), [(1, "All scores are positive"), (-1, "All scores are negative")]
)
def test_lists_of_scores_on_one_side_of_zero_say_so(make_attribution, sign, told):
    scores = sign * np.random.default_rng(0).uniform(1, 2, (2, 2, 4, 40))
    assert told in tree(render(make_attribution(scores=scores), k=3)).words()
    assert told not in tree(render(make_attribution(), k=3)).words()


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ("sampled, not those of training", "Nobody recorded the events"),
        ("fresh, drawn anew", "Events were drawn anew"),
        ("those of the training", ""),
    ],
)
def test_events_that_are_not_those_of_training_are_told_as_such(make_attribution, events, told):
    words = tree(render(make_attribution(config={"run": {"events": events}}), k=3)).words()
    assert ("at the events drawn for it" in words) == bool(told)
    assert ("when training visited it" in words) == (not told)
    for phrase in ("Nobody recorded the events", "Events were drawn anew"):
        assert (phrase in words) == (phrase == told)
