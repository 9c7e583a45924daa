"""The charts tell what result files say."""

import json
from pathlib import Path

import pytest
from written_runs import write_run

from forgetmenot.report.charts import costs, curves, front, pareto, sweeps
from forgetmenot.report.runs import Group, find_runs, group_runs
from forgetmenot.result import RunResult


def change(folder: Path, **values: object) -> None:
    """Changes a run's result."""
    result = RunResult.read(folder)
    for name, value in values.items():
        setattr(result, name, value)
    result.write(folder)


def groups(place: Path) -> list[Group]:
    return group_runs(find_runs([place])[0])


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    group = Group(label="", runs=())
    points = [(x, y, group) for x, y in ((0.5, 0.9), (0.1, 0.5), (0.3, 0.4), (0.3, 0.7), (0.6, 0.9), (0.1, 0.2))]
    assert [point[:2] for point in front(points)] == [(0.1, 0.5), (0.3, 0.7), (0.5, 0.9)]


def test_a_dot_stands_at_the_means_over_seeds_with_their_spread(tmp_path: Path) -> None:
    for seed, after in enumerate((0.7, 0.9)):
        write_run(tmp_path / str(seed), "method=lora", seed=seed, after=after)
    chart = pareto(groups(tmp_path))
    assert chart is not None
    dot, _ = chart.figure["data"]
    assert (dot["x"], dot["y"]) == ([0.5], [pytest.approx(0.5)])
    assert dot["error_y"]["array"] == [pytest.approx(0.2 / 2**0.5)]
    assert "2 seeds" in dot["hovertext"] and "gain 0.500" in dot["hovertext"]


def test_one_seed_has_its_interval_for_bars_and_is_called_one_seed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    change(tmp_path / "a", gain_mean_ci=(0.4, 0.7))
    chart = pareto(groups(tmp_path))
    assert chart is not None
    assert ", 1 seed, " in chart.figure["data"][0]["hovertext"]
    bars = chart.figure["data"][0]["error_y"]
    assert bars["array"] == [pytest.approx(0.2)] and bars["arrayminus"] == [pytest.approx(0.1)]


def test_one_seed_on_several_targets_has_the_interval_of_their_mean_for_bars(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    change(tmp_path / "a", gain_ci={"mood": (0.1, 0.9), "party": (0.2, 0.8)}, gain_mean_ci=(0.4, 0.7))
    chart = pareto(groups(tmp_path))
    assert chart is not None
    bars = chart.figure["data"][0]["error_y"]
    assert bars["array"] == [pytest.approx(0.2)] and bars["arrayminus"] == [pytest.approx(0.1)]


def test_the_more_is_trained_the_larger_the_dot(tmp_path: Path) -> None:
    for method, percent in (("prompt", 0.1), ("lora", 4.0), ("full", 100.0)):
        write_run(tmp_path / method, f"method={method}")
        section = {**RunResult.read(tmp_path / method).method, "trainable_percent": percent}
        change(tmp_path / method, method=section)
    chart = pareto(groups(tmp_path))
    assert chart is not None
    sizes = {dot["name"]: dot["marker"]["size"] for dot in chart.figure["data"][:-1]}
    assert sizes["prompt"] < sizes["lora"] < sizes["full"]


def test_where_colours_begin_anew_dots_have_another_shape_and_short_names_stand_at_them(tmp_path: Path) -> None:
    for number in range(12):
        write_run(tmp_path / str(number), f"method=m{number:02}")
    chart = pareto(groups(tmp_path))
    assert chart is not None
    dots = chart.figure["data"][:-1]
    assert [dot["marker"]["symbol"] for dot in dots] == ["circle"] * 10 + ["square"] * 2
    assert all(dot["mode"] == "markers+text" and dot["text"] == [dot["name"]] for dot in dots)

    for modules in ("q_proj", "v_proj"):
        write_run(tmp_path / modules, "method=lora", f"method.target_modules=[{modules}]")
    chart = pareto(groups(tmp_path))
    assert chart is not None
    assert {dot["mode"] for dot in chart.figure["data"][:-1]} == {"markers"}, "long names would cover each other"


def test_names_in_a_chart_cannot_be_markup(tmp_path: Path) -> None:
    for name in ("<b>a</b>", "c"):
        write_run(tmp_path / name.strip("</b>"), f"method={name}")
    chart = pareto(groups(tmp_path))
    assert chart is not None
    assert {dot["name"] for dot in chart.figure["data"][:-1]} == {"&lt;b&gt;a&lt;/b&gt;", "c"}


def test_titles_of_axes_cannot_be_markup(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / str(number), "method=lora", f"<b>rank</b>={number}")
        lines = [{"step": step, "val/<i>mine</i>": 0.5} for step in (1, 2)]
        (tmp_path / str(number) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        tasks = RunResult.read(tmp_path / str(number)).tasks
        assert tasks is not None
        scores = [{"<i>mine</i>": value} for value in (0.1, 0.2)]
        mood = {**tasks["mood"], "metric": "<i>mine</i>", "before": scores[0], "after": scores[1]}
        change(tmp_path / str(number), tasks={**tasks, "mood": mood})
    (sweep,), learning = sweeps(groups(tmp_path)), curves(groups(tmp_path))
    assert learning is not None
    assert sweep.figure["layout"]["xaxis"]["title"]["text"] == "&lt;b&gt;rank&lt;/b&gt;"
    assert learning.figure["layout"]["yaxis"]["title"]["text"] == "validation &lt;i&gt;mine&lt;/i&gt;"


def test_costs_of_unlike_hardware_stand_in_charts_of_their_own(tmp_path: Path) -> None:
    for number, device in enumerate(("a CPU", "a GPU", "a GPU")):
        write_run(tmp_path / str(number), "method=lora", f"method.rank={number}")
        machine = {"device": device, "devices": 1, "threads": 2, "precision": "bf16"}
        change(tmp_path / str(number), hardware=machine)
    charts = costs(groups(tmp_path))
    assert [len(chart.figure["data"][0]["y"]) for chart in charts] == [1, 2]
    assert "a CPU" in charts[0].note and "a GPU" in charts[1].note


def test_a_curve_shows_the_first_runs_validation_scores(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    lines = [{"step": s, "train/loss": 1.0, **({"val/accuracy": s / 10} if s % 2 else {})} for s in range(8)]
    (tmp_path / "a" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    chart = curves(groups(tmp_path))
    assert chart is not None
    (trace,) = chart.figure["data"]
    assert (trace["x"], trace["y"]) == ([1, 3, 5, 7], [0.1, 0.3, 0.5, 0.7])


def test_runs_without_curves_have_no_chart_of_them(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    assert curves(groups(tmp_path)) is None


def test_a_sweep_over_one_number_is_a_curve_in_its_order(tmp_path: Path) -> None:
    for rank, after in ((16, 0.9), (2, 0.6), (8, 0.8)):
        write_run(tmp_path / str(rank), "method=lora", f"method.rank={rank}", after=after)
    (chart,) = sweeps(groups(tmp_path))
    gain = chart.figure["data"][0]
    assert (gain["x"], gain["y"]) == ([2, 8, 16], [pytest.approx(0.3), pytest.approx(0.5), pytest.approx(0.6)])
    assert chart.title == "lora over method.rank"


@pytest.mark.parametrize(("ranks", "told"), [((2, 8, 32), ["2", "8", "32"]), ((2, 4, 6), None)])
def test_a_wide_axis_is_logarithmic_and_names_the_values_that_were_tried(
    tmp_path: Path, ranks: tuple[int, ...], told: list[str] | None
) -> None:
    for rank in ranks:
        write_run(tmp_path / str(rank), "method=lora", f"method.rank={rank}")
    axis = sweeps(groups(tmp_path))[0].figure["layout"]["xaxis"]
    assert (axis["type"], axis.get("ticktext")) == ("log" if told else "linear", told)


def test_a_sweep_of_one_seed_has_intervals_for_bars_and_of_several_their_spread(tmp_path: Path) -> None:
    for rank in (2, 4, 8):
        write_run(tmp_path / f"one{rank}", "method=lora", f"method.rank={rank}")
        change(tmp_path / f"one{rank}", gain_mean_ci=(0.4, 0.7))
        for seed, after in enumerate((0.7, 0.9)):
            write_run(tmp_path / f"two{rank}{seed}", "method=full", f"layers={rank}", seed=seed, after=after)
    bars = {chart.title: chart.figure["data"][0]["error_y"] for chart in sweeps(groups(tmp_path))}
    assert bars["lora over method.rank"]["array"] == pytest.approx([0.2] * 3)
    assert bars["lora over method.rank"]["arrayminus"] == pytest.approx([0.1] * 3)
    assert bars["full over layers"]["array"] == bars["full over layers"]["arrayminus"] == pytest.approx([0.02**0.5] * 3)


def test_sweeps_beside_each_other_and_grids_have_a_curve_each(tmp_path: Path) -> None:
    for number in range(1, 4):
        write_run(tmp_path / f"kl{number}", "method=full", f"kl.weight={number}")
        write_run(tmp_path / f"ewc{number}", "method=full", f"ewc.weight={number}")
        for rate in (1, 2):
            write_run(tmp_path / f"{number}{rate}", "method=lora", f"rank={number}", f"rate={rate}")
    write_run(tmp_path / "full", "method=full")
    titles = {chart.title for chart in sweeps(groups(tmp_path))}
    assert titles == {"full over kl.weight", "full over ewc.weight", "lora rate=1 over rank", "lora rate=2 over rank"}


def test_groups_that_differ_in_more_or_in_words_are_no_sweep(tmp_path: Path) -> None:
    for number, words in enumerate((("rank=1", "a=1"), ("rank=2", "a=2"), ("rank=3", "a=3"))):
        write_run(tmp_path / str(number), "method=lora", *words)
    for number, word in enumerate("xyz"):
        write_run(tmp_path / word, "method=full", f"optimizer={word}", seed=number)
    assert sweeps(groups(tmp_path)) == []
