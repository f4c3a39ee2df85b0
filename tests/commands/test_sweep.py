"""sweep: a training at every K, gone on with where it stopped, and the search beside it."""

import html
import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dvp.build import build
from dvp.config import check, ex
from dvp.module import DVPModule
from dvp.runs.progress import duration_of
from dvp.sweep import alike, beside, search_flops, sweep_flops, table_lines, table_of, training_flops
from dvp.sweep import flops as counted

BERT = "dvp_adaption_bert_gqa"


@pytest.fixture
def settings(tiny: Callable[..., dict]) -> dict[str, Any]:
    return tiny(BERT, max_steps=2, use_adapter=True)


def sweep_in(settings: dict[str, Any]) -> dict[str, Any]:
    (path,) = Path(settings["log_dir"]).glob(f"{BERT}_sweep/*/sweep.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_trains_at_every_layer_and_goes_on_where_it_stopped(
    settings, command, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, fitted = Trainer.fit, []

    def fit_twice(trainer: Trainer, *args: Any, **options: Any) -> None:
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(trainer)
        fit(trainer, *args, **options)

    monkeypatch.setattr(Trainer, "fit", fit_twice)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        command("sweep", "with", BERT, **settings)
    monkeypatch.setattr(Trainer, "fit", fit)
    capsys.readouterr()
    command("sweep", "with", BERT, **settings)
    out = capsys.readouterr().out
    assert "3 trainings, 2 of them done" in out and "1 of 1: K = 2, seed 0" in out
    found = sweep_in(settings)
    assert found["version"] == 1 and found["search"] is None and "No search of these settings" in out
    assert [(row["layer"], row["seeds"], row["spread"]) for row in found["table"]] == [(k, 1, None) for k in range(3)]
    assert [cell["updates"] for cell in found["cells"]] == [2, 2, 2]
    assert all(0 <= row["mean"] <= 100 for row in found["table"])
    command("sweep", "with", BERT, **settings, seeds="0,1", layers=1)  # more of the same sweep
    again = sweep_in(settings)
    assert [(row["layer"], row["seeds"]) for row in again["table"]] == [(0, 1), (1, 2), (2, 1)]
    command("sweep", "with", BERT, **settings | {"max_steps": 1}, layers=0)  # of others
    assert len(list(Path(settings["log_dir"]).glob(f"{BERT}_sweep/*"))) == 2


def test_a_training_that_was_stopped_is_gone_on_with(settings, command, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"layers": 1, "max_steps": 4, "save_every": 1}
    command("sweep", "with", BERT, **settings | options | {"log_dir": f"{settings['log_dir']}_whole"})
    whole = sweep_in(settings | {"log_dir": f"{settings['log_dir']}_whole"})
    step, passes = DVPModule.training_step, []

    def stop_once(module: DVPModule, *args: Any) -> Any:
        passes.append(module.trainer.global_step)
        if len(passes) == 6:
            raise KeyboardInterrupt
        return step(module, *args)

    monkeypatch.setattr(DVPModule, "training_step", stop_once)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        command("sweep", "with", BERT, **settings | options)
    command("sweep", "with", BERT, **settings | options)
    assert passes == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3]
    found = sweep_in(settings)
    assert [cell["value"] for cell in found["cells"]] == [cell["value"] for cell in whole["cells"]]
    assert [cell["updates"] for cell in found["cells"]] == [4]


def test_one_that_was_stopped_at_its_end_is_done_and_its_seconds_count(
    settings, command, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = DVPModule.training_step

    def stop_at_the_end(module: DVPModule, *args: Any) -> Any:
        if module.trainer.global_step == 1 and not module.within_update:
            duration_of(module.trainer).earlier = 1000.0
            os.kill(os.getpid(), signal.SIGINT)
        return step(module, *args)

    monkeypatch.setattr(DVPModule, "training_step", stop_at_the_end)
    with pytest.raises(SystemExit):
        command("sweep", "with", BERT, **settings, layers="0,1")
    monkeypatch.setattr(DVPModule, "training_step", step)
    assert not list(Path(settings["log_dir"]).rglob("cells"))
    capsys.readouterr()
    command("sweep", "with", BERT, **settings, layers="0,1")
    out, (first, second) = capsys.readouterr().out, sweep_in(settings)["cells"]
    assert "2 trainings, 1 of them done" in out and "1 of 2: K = 0, seed 0, which had ended and is only scored" in out
    assert "2 of 2: K = 1, seed 0\n" in out
    assert first["updates"] == second["updates"] == 2 and second["seconds"] < 1000 < first["seconds"]


@pytest.mark.parametrize("experiment", ["dvp_adaption_bert_vqa", "dvp_adaption_llama_gqa", "dvp_adaption_t5_vqa"])
@pytest.mark.parametrize("image_tokens", ["live", "cache"])
def test_what_shapes_tell_is_what_a_training_takes(experiment: str, image_tokens: str, configure) -> None:
    config = configure(experiment, image_tokens=image_tokens, drop_rate=0.0)
    data, module = build(config)
    rows = data.questions(data.task.train, "train")
    batch = data.reader.collate([rows[item] for item in range(counted.ROWS)])
    if image_tokens == "cache":
        batch["image_tokens"] = module.model.embed(batch)[1].tokens
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        data.task.loss(module.model.train()(batch, config["insert_layer"]), batch["targets"]).backward()
    assert training_flops(config) == counter.get_total_flops() / counted.ROWS


def test_the_search_stands_beside_it(settings, command, capsys) -> None:
    command("with", "dvp_search_bert_gqa", **settings | {"report": True})
    (path,) = Path(settings["log_dir"]).rglob("search.json")
    found = json.loads(path.read_text())
    assert f"{found['flops']:.3g} counted floating-point operations" in path.with_name("search.html").read_text()
    path.write_text(json.dumps(found | {"found": True, "verdict": "K is there"}))
    command("sweep", "with", BERT, **settings)
    out, swept = capsys.readouterr().out, sweep_in(settings)
    means = [row["mean"] for row in swept["table"]]
    assert swept["search"]["regret"] == pytest.approx(max(means) - means[found["insert_layer"]])
    assert 0 < found["flops"] == swept["search"]["flops"] and 0 < swept["search"]["sweep_flops"]
    assert "K is there" in out and "% of this sweep of all 3 layers)" in out
    assert " points; one seed: no spread is known (best here: " in out
    kept = json.loads(path.read_text())
    assert [row[0][:5] for row in kept["swept"][:2]] == ["K = 0", "K = 1"] and kept["trace"] == found["trace"]
    text = path.with_name("search.html").read_text()
    assert "Trained at every layer" in text and "<td>budget of each training</td><td>2 updates of 8 rows</td>" in text
    assert "<td>max_steps</td><td>2</td>" in text
    (page,) = Path(settings["log_dir"]).rglob("sweep.html")
    text = page.read_text()
    assert "Training at every layer" in text and "points; one seed: no spread is known</td>" in text
    assert "<th>trained</th>" not in text and "seeds: how many trainings there are at the layer" in text
    assert f"<td>date</td><td>{date.today().year}-" in text and "<td>torch</td>" in text
    (typed,) = re.findall(r"<pre>python run.py (.*?)</pre>", text)
    capsys.readouterr()
    command(*shlex.split(html.unescape(typed)))
    assert "3 trainings, 3 of them done" in capsys.readouterr().out
    assert "K is there" in text and not re.search(r"(src|href)=|url\(|<script", text) and "<svg" in text


def test_a_sweep_of_some_layers_says_of_which(settings, command, capsys) -> None:
    command("with", "dvp_search_bert_gqa", **settings)
    (path,) = Path(settings["log_dir"]).rglob("search.json")
    path.write_text(path.read_text().replace('"found": false', '"found": true'))
    capsys.readouterr()
    command("sweep", "with", BERT, **settings, layers=1)
    command("sweep", "with", BERT, **settings, layers=2, seeds="0,1")
    assert "% of this sweep of 2 of 3 layers)" in capsys.readouterr().out
    (page,) = Path(settings["log_dir"]).rglob("sweep.html")
    text = page.read_text()
    assert "Training at layers 1 and 2: " in text and "search and sweep of 2 of 3 layers" in text
    assert "python run.py sweep with " in text and " layers=1,2 seeds=0,1" in text
    assert "Trained at layers 1 and 2<" in path.with_name("search.html").read_text()


@pytest.mark.parametrize("level, passed", [(0, True), (100, False)])
def test_speed_is_the_updates_until_a_level_is_passed(level: float, passed: bool, settings, command, capsys) -> None:
    command("sweep", "with", BERT, **settings | {"max_steps": 4, "layers": 1}, metric="speed", level=level)
    (cell,) = sweep_in(settings)["cells"]
    assert (cell["value"], cell["updates"]) == ((1, 1) if passed else (None, 4))  # an epoch has one update
    assert ("1 never passed" in capsys.readouterr().out) != passed


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"insert_layer": 1}, "insert_layer is not for sweep"),
        ({"seed": 1}, "seed is not for sweep"),
        ({"layers": 3}, "layers=3 is outside this model"),
        ({"metric": "speed"}, "level=<percent>"),
    ],
)
def test_what_it_cannot_do_is_refused(changes: dict[str, Any], message: str, settings, refused) -> None:
    assert message in refused("sweep", "with", BERT, **settings | changes)
    assert not list(Path(settings["log_dir"]).rglob("cells"))


def test_a_search_is_no_sweep(tiny, refused) -> None:
    assert "a search is none" in refused("sweep", "with", "dvp_search_bert_gqa", **tiny("dvp_search_bert_gqa"))


CELLS = [
    {"layer": 0, "seed": 0, "value": 40.0, "seconds": 1.0, "updates": 8},
    {"layer": 0, "seed": 1, "value": 50.0, "seconds": 1.0, "updates": 8},
    {"layer": 1, "seed": 0, "value": 60.0, "seconds": 1.0, "updates": 8},
    {"layer": 2, "seed": 0, "value": None, "seconds": 1.0, "updates": 8},
]
SEARCH = {"config": {}, "verdict": "", "decided": True, "updates": 9, "seconds": 2.0}


def test_means_spread_and_regret() -> None:
    table = table_of(CELLS)
    assert [row["mean"] for row in table] == [45.0, 60.0, None]
    assert [row["spread"] for row in table] == [pytest.approx(50**0.5), None, None]
    score, speed = (
        [beside(table, CELLS, SEARCH | {"insert_layer": layer}, metric) for layer in range(3)]
        for metric in ("score", "speed")
    )
    assert [found["regret"] for found in score] == [15.0, 0.0, None]
    assert [found["regret"] for found in speed] == [0.0, 15.0, None]  # fewer updates are better
    assert score[0]["best_layers"] == [1] and speed[0]["best_layers"] == [0] and score[0]["sweep_seconds"] == 4.0


def test_tied_layers_are_all_named_and_an_unknown_regret_is_explained() -> None:
    cells = [*CELLS[:3], {"layer": 3, "seed": 0, "value": 60.001, "seconds": 1.0, "updates": 8}, CELLS[3]]
    table = table_of(cells)
    found = {layer: beside(table, cells, SEARCH | {"insert_layer": layer}, "score") for layer in (0, 2, 5)}
    assert found[0]["best_layers"] == [1, 3] and found[0]["regret_told"] == "15.00 points; one seed: no spread is known"
    assert found[2]["regret_told"] == "unknown, since K = 2 did not pass the level with every seed"
    assert found[5]["regret_told"] == "unknown, since K = 5 was not trained at"
    costs = {"flops": 1.0, "sweep_flops": 2.0, "path": "there"}
    told = {"monitor": "score", "metric": "score", "extent": "all 4 layers"}
    sweep = told | {"table": table, "search": found[5] | costs}
    assert "regret of K = 5: unknown, since K = 5 was not trained at (best here: 1 and 3)" in table_lines(sweep)
    assert "Best here: 1 and 3. No search" in table_lines(sweep | {"search": None})


def test_layers_that_come_to_the_same_have_no_best_and_no_regret(
    settings, command, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("with", "dvp_search_bert_gqa", **settings)
    (path,) = Path(settings["log_dir"]).rglob("search.json")
    path.write_text(path.read_text().replace('"found": false', '"found": true'))
    frozen = settings | {"learning_rate": 1e-12}  # each answers as its head was drawn
    capsys.readouterr()
    command("sweep", "with", BERT, **frozen)
    out, (page,) = capsys.readouterr().out, Path(settings["log_dir"]).rglob("sweep.html")
    value = sweep_in(settings)["table"][0]["mean"]
    told = (
        f"Nothing sets the layers apart: all come to {value:.2f}. If a blind model comes to as much, nothing was learnt"
    )
    assert told in out and told in page.read_text()
    assert "not to be told, since all layers are alike (best here: none, all are alike)" in out
    assert "none, all are alike" in page.read_text()


def test_layers_within_the_spread_over_seeds_are_alike() -> None:
    values = {0: (40.0, 46.0), 1: (42.0, 43.0), 2: (44.0, 41.0)}
    cells = [
        {"layer": layer, "seed": seed, "value": value}
        for layer, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    assert "no further apart than the seeds of one of them" in alike(table_of(cells), "score")
    better = [cell | {"value": 60.0} if cell["layer"] == 2 else cell for cell in cells]
    assert alike(table_of(better), "score") == "" == alike(table_of(cells), "speed")
    assert alike(table_of(cells[:2]), "score") == "" == alike(table_of(CELLS), "score")


def test_operations_grow_with_updates_and_scorings(configure) -> None:
    config = configure("dvp_search_bert_gqa")
    layers = len(build(config)[1].model.compressors)
    once = {"updates": 1, "trace": []}
    alone = search_flops(config, once)
    scored = [search_flops(config, once | {"trace": [{"arms": list(range(count))}]}) for count in (1, layers)]
    assert 0 < alone < scored[0] < scored[1]
    asked = {"arms": list(range(layers)), "best": 0, "blind": 1.0}  # one arm again
    assert scored[1] < search_flops(config, once | {"trace": [asked]}) <= scored[1] + scored[0] - alone
    assert search_flops(config, {"updates": 3, "trace": []}) == pytest.approx(3 * alone)
    train = check(dict(ex.settings) | config | {"search_stage": False})
    cells = [{"layer": layer, "updates": 1} for layer in range(layers)]
    assert sweep_flops(train, cells) == pytest.approx(layers * alone, rel=0.02)  # a search trains as they do


def test_of_many_draws_the_first_stand_for_all(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config, trace = configure("dvp_search_bert_gqa"), [{"arms": [0]}, {"arms": [0]}, {"arms": [0, 1]}]
    none, one, all_ = (search_flops(config, {"updates": 1, "trace": trace[:count]}) for count in (0, 1, 3))
    monkeypatch.setattr(counted, "DRAWN", 1)
    few = search_flops(config, {"updates": 1, "trace": trace})
    assert few == pytest.approx(none + 3 * (one - none)) and few < all_
