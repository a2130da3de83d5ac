"""The pictures: what they show, that they are the same each time, and that nothing outside changes them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from hansa.report import pictures, rows
from hansa.report.drawing import MAX_TALL_ROWS, Picture, cells, height, wrapped

SVG = "{http://www.w3.org/2000/svg}"


def all_pictures(report) -> list[Picture]:
    drawn = [pictures.by_group(report, group, i) for i, group in enumerate(rows.groups(report.quality))]
    others = (
        pictures.over_rounds,
        pictures.by_member,
        pictures.spending,
        pictures.attendance,
        pictures.compared,
    )
    drawn += [draw(report) for draw in others]
    return [picture for picture in drawn if picture is not None]


def parse(picture: Picture) -> ET.Element:
    return ET.fromstring(picture.svg)  # noqa: S314 (what was just drawn here)


def texts(picture: Picture) -> list[str]:
    return ["".join(node.itertext()).strip() for node in parse(picture).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("normal", ["by-group-0", "by-group-1", "over-rounds", "by-member", "spending"]),
        ("no-privacy", ["by-group-0", "by-group-1", "over-rounds", "by-member"]),
        ("partial", ["by-group-0", "by-group-1", "over-rounds", "by-member", "spending", "attendance"]),
        ("references", ["by-group-0", "by-group-1", "over-rounds", "by-member", "spending", "compared"]),
        ("single-point", ["by-group-0", "by-group-1", "by-member", "spending"]),
    ],
)
def test_a_picture_is_there_when_it_has_something_to_show(cases, name, expected):
    drawn = all_pictures(cases[name])
    assert [picture.name for picture in drawn] == expected
    for picture in drawn:
        root = parse(picture)
        assert root.tag == f"{SVG}svg"
        assert "width" not in root.attrib
        assert root.attrib["role"] == "img"
        ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
        assert len(ids) == len(set(ids))
        assert all(identifier.startswith(f"{picture.name}-") for identifier in ids)
        labels = root.attrib["aria-labelledby"].split()
        assert [next(n for n in root.iter() if n.attrib.get("id") == label).text for label in labels] == [
            picture.title,
            picture.description,
        ]
        used = re.findall(r'(?:url\(#|href="#)([^)"]+)', picture.svg)
        assert set(used) <= set(ids)
        assert not root.findall(f".//{SVG}style")
        assert "metadata" not in picture.svg


def test_the_curves_end_at_the_numbers_of_the_last_round(cases):
    report = cases["normal"]
    picture = pictures.over_rounds(report)
    assert "from 0.465 at round 0 to 0.802 at round 20" in picture.description
    assert "ε of any member is 7.999" in picture.description
    assert {"budget 8", "mean over members", "all records", "each member", "round"} <= set(texts(picture))
    assert report.history[-1].mean_over_members == pytest.approx(0.802, abs=5e-4)


def test_members_are_sorted_best_first_with_their_values(cases):
    report = cases["normal"]
    shown = texts(pictures.by_member(report))
    best_first = sorted(report.quality.by_member, key=lambda name: -report.quality.by_member[name])
    assert [text for text in shown if text in report.quality.by_member] == best_first
    assert [text for text in shown if text in {f"{v:.3f}" for v in report.quality.by_member.values()}] == [
        f"{report.quality.by_member[name]:.3f}" for name in best_first
    ]
    assert f"mean {report.quality.mean_over_members:.3f}" in shown


def test_group_pictures_name_the_gap(cases):
    report = cases["normal"]
    _, sex = rows.groups(report.quality)
    shown = texts(pictures.by_group(report, sex, 1))
    assert {"F", "M", "gap 0.102"} <= set(shown)


def test_group_values_that_look_like_markup_are_text(cases):
    age, _ = rows.groups(cases["normal"].quality)
    shown = texts(pictures.by_group(cases["normal"], age, 0))
    assert [name for name in shown if name[0] in "<>4"] == ["<45", "45-65", ">=65"]


def test_attendance_shows_each_member_s_rounds(cases):
    picture = pictures.attendance(cases["partial"])
    assert picture.description == "Aachen missed 1 round; Leipzig missed 3 rounds; Kiel missed 5 rounds."
    assert {"14/14", "13/14", "11/14", "9/14"} <= set(texts(picture))


def test_runs_of_rounds_are_joined_only_where_cells_would_be_too_small():
    assert cells([1, 2, 3, 7], 0.0) == [(0.5, 3), (6.5, 1)]
    assert cells([1, 2], 0.1) == [pytest.approx((0.6, 0.8)), pytest.approx((1.6, 0.8))]
    assert cells([], 0.0) == []


def test_long_runs_are_thinned_to_what_can_be_seen(make_report, cases):
    point = cases["normal"].history[-1]
    history = tuple(point.model_copy(update={"round": r, "by_member": {}}) for r in range(5001))
    thinned = pictures._thinned(history)
    assert len(thinned) == pictures.MAX_POINTS
    assert (thinned[0].round, thinned[-1].round) == (0, 5000)
    assert [p.round for p in thinned] == sorted({p.round for p in thinned})
    picture = pictures.over_rounds(make_report(history=history))
    assert len(picture.svg) < 60_000
    assert "each member" not in texts(picture)


def test_many_members_are_a_range_and_their_rows_move_together(make_report):
    league = tuple(f"hospital-{i}" for i in range(40))
    report = make_report(members=league, rounds=2)
    assert "range over members" in texts(pictures.over_rounds(report))
    shown = texts(pictures.by_member(report))
    assert set(league) <= set(shown)
    assert height(league) < 40 * height(["a", "b"]) / 2


def test_budgets_that_differ_are_all_drawn_or_the_outer_two(make_report):
    tree = make_report().model_dump()
    for budget, member in zip((4.0, 6.0, 8.0, 8.0, 10.0), tree["members"], strict=True):
        member["budget_epsilon"] = budget
    report = type(make_report()).model_validate(tree)
    assert {"budget 4", "budget 10"} <= set(texts(pictures.over_rounds(report)))
    assert "budget 6" not in texts(pictures.over_rounds(report))


def test_nothing_spent_and_no_budget_can_be_drawn(make_report):
    tree = make_report(epsilon=0.0).model_dump()
    for member in tree["members"]:
        member["budget_epsilon"] = None
    report = type(make_report()).model_validate(tree)
    assert "0.000" in texts(pictures.spending(report))
    assert pictures.over_rounds(report) is not None


def test_the_same_report_gives_the_same_bytes(cases):
    assert all_pictures(cases["partial"]) == all_pictures(cases["partial"])


def test_a_user_s_matplotlib_settings_neither_change_a_picture_nor_are_changed(cases):
    import matplotlib as mpl

    before = pictures.by_member(cases["normal"])
    with mpl.rc_context(
        {"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "black", "lines.linewidth": 9}
    ):
        assert pictures.by_member(cases["normal"]) == before
        assert mpl.rcParams["font.size"] == 30
        assert mpl.rcParams["svg.hashsalt"] is None


def test_pyplot_stays_out_of_it(cases):
    import sys

    loaded = "matplotlib.pyplot" in sys.modules
    pictures.by_member(cases["normal"])
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize(
    ("name", "lines", "shown"),
    [
        ("Kiel", 2, "Kiel"),
        ("Charite-Berlin", 2, "Charite-Berlin"),
        ("Queen-Elizabeth-University-Hospital-Glasgow", 2, "Queen-Elizabeth-\nUniversity…"),
        ("Queen-Elizabeth-University-Hospital-Glasgow", 1, "Queen-Elizabeth…"),
        ("federated, no privacy", 2, "federated, no\nprivacy"),
        ("Donaudampfschifffahrtsgesellschaft", 2, "Donaudampfschifffa\nhrtsgesellschaft"),
        ("UMC_Utrecht.Heidelberglaan", 2, "UMC_Utrecht.\nHeidelberglaan"),
        ("a" * 64, 2, "a" * 18 + "\n" + "a" * 18 + "…"),
    ],
)
def test_names_are_broken_after_punctuation_and_cut(name, lines, shown):
    assert wrapped(name, lines) == shown
    assert all(len(line) <= 20 for line in shown.split("\n"))


def test_heights_grow_with_rows():
    assert height(["a"]) == height(["a", "b"]) < height(["a", "b", "c"])
    assert height(["a", "b", "c"]) < height(["a", "b", "federated, no privacy"])
    assert height(["a"] * (MAX_TALL_ROWS + 1)) < height(["a"] * MAX_TALL_ROWS) + 0.3
