"""Pictures are legible: baselines beside curves, differences in heat maps, foreign letters drawn or left out, whole labels."""

from __future__ import annotations

import doctest
import itertools
import json
import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")

from matplotlib import font_manager
from matplotlib.font_manager import FontEntry
from matplotlib.text import Text

from attnrec_dist.comparison.forest_plot import forest
from attnrec_dist.comparison.report import Judged, Verdict
from attnrec_dist.evaluation.curves import curves
from attnrec_dist.evaluation.significance import Difference
from attnrec_dist.explanation import heat_map as explanation_plots
from attnrec_dist.explanation.heat_map import heat_map
from attnrec_dist.explanation.report import Case, Picture, Told
from attnrec_dist.plotting import figures as figures_of
from attnrec_dist.plotting import lettering

TEA = "茶壶"
CHOSEN = "eval/next_basket/all/ndcg@10"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved; a warning, of a missing letter say, is an error."""
    figures = []
    save = lettering.letter

    def noted(figure) -> None:
        save(figure)
        figures.append(figure)

    monkeypatch.setattr(figures_of, "letter", noted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield figures


def fonts(monkeypatch, *more) -> None:
    usual = [each for each in font_manager.fontManager.ttflist if each.name.startswith("DejaVu Sans")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*usual, *more])


@pytest.fixture
def with_tea(tmp_path, monkeypatch) -> None:
    """A machine whose one font beside the usual ones has the letters of TEA."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    for point, move in (((100, 0), pen.moveTo), ((900, 0), pen.lineTo), ((500, 800), pen.lineTo)):
        move(point)
    pen.closePath()
    names = [".notdef", *(f"tea{place}" for place in range(len(TEA)))]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"tea{place}" for place, letter in enumerate(TEA)})
    glyph = pen.glyph()
    builder.setupGlyf(dict.fromkeys(names, glyph))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Tea Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "tea.ttf")
    fonts(monkeypatch, FontEntry(fname=str(tmp_path / "tea.ttf"), name="Tea Sans"))


def texts_of(figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def picture(titles: list[str], weights: np.ndarray, names=None) -> Picture:
    """`weights` [rows, K]: the first row is the mean, the others are the examples'."""
    fields = tuple(names or (f"field_{place}" for place in range(weights.shape[1])))
    cases = [
        Case("17", title, "now", "label: yes", 0.5, [Told(name, "x", w) for name, w in zip(fields, row)], [], 0)
        for title, row in zip(titles, weights[1:])
    ]
    return Picture(f"What {titles[0]} looked at", "label", "", fields, {"all": (20, weights[0])}, cases=cases)


# Letters


def test_letters_of_another_font_are_drawn(with_tea, drawn, tmp_path):
    heat_map(picture([TEA, "a $5 hat, $6"], np.full((3, 2), 0.5)), tmp_path / "w.png")
    shown = texts_of(drawn[0])
    assert any(TEA in text for text in shown)
    assert any("$5 hat, $6" in text for text in shown)
    assert not any(lettering.LEFT_OUT in text for text in shown)
    assert (tmp_path / "w.png").stat().st_size > 5_000


def test_letters_of_no_font_are_left_out_and_told(monkeypatch, drawn, tmp_path):
    fonts(monkeypatch)
    heat_map(picture([f"{TEA} pot", f"hat {TEA} {TEA}", "💚"], np.full((4, 2), 0.5)), tmp_path / "w.png")
    d = Difference(0.3, 0.29, 0.01, 0.002, 0.018, 0.01, views=9)
    runs = [f"{TEA}-run", "base"]
    forest(Verdict({}, {run: {} for run in runs}, {}, [Judged(*runs, "ndcg@10", d, 0.01)]), tmp_path / "f.png")
    for figure in drawn:
        shown = texts_of(figure)
        assert not any(letter in text for text in shown for letter in TEA)
        assert lettering.FOOT in shown
    assert any("customer 17: hat [...] - label: yes" in text for text in texts_of(drawn[0]))


def test_usual_letters_ask_for_no_other_font(monkeypatch, drawn, tmp_path):
    monkeypatch.setattr(lettering, "_has", lambda *_: pytest.fail("no font is to be opened"))
    heat_map(picture(["Käse, שלום, مرحبا, €5"], np.full((2, 2), 0.5)), tmp_path / "w.png")
    assert any("Käse, שלום, مرحبا, €5" in text for text in texts_of(drawn[0]))


# The heat map


@pytest.mark.parametrize("fields", [1, 12, 60])
def test_weights_that_hardly_differ_have_colours_that_do(drawn, tmp_path, fields):
    random = np.random.default_rng(0)
    weights = 1 / fields + (random.uniform(-0.02, 0.02, (4, fields)) / fields if fields > 1 else np.zeros((4, 1)))
    heat_map(picture(["hat", "pot", "cup"], weights), tmp_path / "w.png")
    axes = drawn[0].axes[1]
    colours = axes.images[0].to_rgba(axes.images[0].get_array())[..., :3]  # [rows, K, 3]
    if fields == 1:
        assert np.ptp(colours) < 0.01, "an even share is white"
        assert colours.min() > 0.9
    else:
        shown, even = weights[1:], 1 / fields
        order = np.argsort(-weights[0], kind="stable")
        red_minus_blue = (colours[..., 0] - colours[..., 2]).ravel()
        above = (shown[:, order] - even).ravel()
        clear = np.abs(above) > 0.005 * even
        assert (np.sign(red_minus_blue[clear]) == np.sign(above[clear])).all()
        assert np.ptp(red_minus_blue) > 1
    assert any("white at 1" in text and f"{1 / fields:.3f}" in text for text in texts_of(drawn[0]))


def test_labels_are_whole_or_end_at_a_word(drawn, tmp_path):
    title = "SET OF 36 MUSHROOM PAPER DOILIES WITH GOLD EDGE AND A RIBBON ALL AROUND, LARGE"
    name = "days_since_the_user_bought_something_of_the_category_of_the_item"
    heat_map(picture([title], np.full((2, 2), 0.5), names=(name, "price")), tmp_path / "w.png")
    shown = texts_of(drawn[0])
    [row] = {text for text in shown if "customer 17" in text}
    words = row.removeprefix("customer 17: ").partition("...")[0]
    assert title.startswith(f"{words} ")
    assert row.endswith("... - label: yes")
    assert name in [text.replace("\n", "") for text in shown]


def test_many_rows_of_long_names_fit_a_picture(drawn, tmp_path):
    d = Difference(0.3, 0.29, 0.01, 0.002, 0.018, 0.01, views=9)
    runs = [f"2026-05-01_mixture-with-everything_learning-rate-0.001_seed-{place}" for place in range(10)]
    judged = [
        Judged(a, b, f"{part}/ndcg@10", d, 0.1) for part in ("period/all", "period/new") for a in runs for b in runs if a < b
    ]
    forest(Verdict({}, {run: {} for run in runs}, {}, judged), tmp_path / "f.png")
    [axes] = drawn[0].axes
    drawn[0].draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert len(boxes) == 90
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes)), "no two labels overlap"
    assert min(box.x0 for box in boxes) >= 0


# The curves


def log(path, steps=(26, 52)):
    losses = [{"step": step, "loss": 6 + 3 / step} for step in range(1, steps[-1] + 1)]
    evaluations = [{"step": step, CHOSEN: 0.3 + step / 1000, "eval/period/all/ndcg@10": 0.33} for step in steps]
    path.write_text("".join(json.dumps(each) + "\n" for each in losses + evaluations))
    return path


@pytest.mark.parametrize("steps", [(26, 52), (26,)])
def test_baselines_are_level_lines_with_their_values(drawn, tmp_path, steps):
    close = {"popularity": 0.3301, "trend": 0.3302, "own_trend": 0.3303}
    curves(log(tmp_path / "metrics.jsonl", steps), tmp_path / "curves.png", CHOSEN, close)
    right = drawn[0].axes[1]
    level = [
        line.get_ydata()[0] for line in right.get_lines() if len(set(line.get_ydata())) == 1 and line.get_linestyle() == "--"
    ]
    assert sorted(level) == sorted(close.values())
    shown = texts_of(drawn[0])
    for name, value in close.items():
        assert f"{name} {value:.4f}" in shown
    boxes = sorted((Text.get_window_extent(text) for text in right.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes)), "labels of close lines do not overlap"
    assert max(box.x1 for box in boxes) <= drawn[0].bbox.x1
    assert right.get_xlim()[0] == 0, "one evaluation stands where it was made"


def test_plot_measures_the_baselines_once(attnrec, trained, tmp_path, monkeypatch, drawn):
    import shutil

    run = shutil.copytree(trained.run, tmp_path / "run", symlinks=True)
    done = attnrec("evaluate", run, "--split", "validation", "--output", tmp_path / "v.json")
    assert done.code == 0, done.err
    measured = json.loads((tmp_path / "v.json").read_text())["customers"]["values"]
    first = attnrec("plot", run)
    assert first.out == f"{run / 'curves.png'}\n"
    assert "measuring the baselines" in first.err
    shown = texts_of(drawn[0])
    for name in ("popularity", "own_trend", "own_frequency"):
        assert f"{name} {measured[name]['next_basket/all/ndcg@10']:.4f}" in shown
    monkeypatch.setattr("attnrec_dist.engine.config.load_run_config", lambda *_: pytest.fail("they are kept"))
    assert attnrec("plot", run).err == f"next: attnrec evaluate {run}\n"
    assert set(texts_of(drawn[1])) == set(shown)
    monkeypatch.undo()
    (run / "baselines.json").write_text('{"measured on": 1, "values": 3}')
    assert "measuring the baselines" in attnrec("plot", run).err, "what cannot be read is measured again"
    shutil.move(run / "config.yaml", run / "was.yaml")
    (run / "config.yaml").write_text((run / "was.yaml").read_text().replace(str(trained.data), str(tmp_path / "moved")))
    moved = attnrec("plot", run)
    assert moved.code == 0
    assert "drawn without the baselines" in moved.err
    assert "no such data set" in moved.err


@pytest.mark.parametrize("section", ["evaluation", "data"])
def test_a_section_of_the_run_that_holds_no_keys_is_refused(attnrec, tmp_path, section):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        f"data: {{path: nowhere}}\nevaluation: {{}}\n{section}: 5\n".replace(f"{section}: {{", "was: {")
    )
    done = attnrec("plot", run)
    assert done.code == 2
    assert f"{section}: expected keys, found 5" in done.err


def test_docstring_examples():
    assert doctest.testmod(lettering).failed == 0
    assert doctest.testmod(explanation_plots).failed == 0
