"""Search K, train there from the search's own weights, answer the test questions: one command for all three."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvp.commands.early import missing_tables
from dvp.commands.idle import idle
from dvp.commands.main import carry_out
from dvp.commands.next import ask, what_next
from dvp.config import NAMED, check, ex, is_saved, read_saved, settle
from dvp.errors import UserError
from dvp.files import RESUME_WORDS
from dvp.runs.folder import is_first_process

if TYPE_CHECKING:
    import pytorch_lightning as pl

STAGES = ("dvp_search_", "dvp_adaption_")
# What the stages settle between them.
SETTLED = ("search_stage", "test_only", "insert_layer", "start_from", "load_path", "fast_dev_run")
UNTOLD = ("exp_name", "search_stage", "accumulate")  # of what differs between the stages


@ex.command
def search_and_train(_config, _run):
    """Search K, train there from the search's weights, answer the test questions.

    Takes an experiment of either stage; what is typed holds for both.
    """
    named, typed = _run.meta_info["named_configs"], _run.meta_info.get("config_updates", {})
    search, train = two_stages(named, typed)
    if is_first_process():
        print(differences(search, train))
        for key, why in [found for found in idle(typed, search) if found in list(idle(typed, train))]:
            print(f"{key}={typed[key]} has no effect: {why}.")
    from dvp.report.search import update_search
    from dvp.search import search_beside, useless

    start = time.perf_counter()
    trainer = _stage("1 of 3: search", search, _run)
    last = Path(trainer.log_dir) / "checkpoints" / "last.ckpt"
    trainer.strategy.barrier("the first process has written search.json")
    found = search_beside(last)
    if not found.record["found"]:
        longer = what_next(search, trainer, named, typed)
        why = useless(found.path, found.record)
        raise UserError(f"Nothing was trained, since the search {why}; {found.path} tells more. {longer}")
    at = {"insert_layer": found.insert_layer, "load_path": str(found.checkpoint)}
    trainer = _stage(f"2 of 3: training at K = {found.insert_layer}", train | at, _run)
    best = trainer.checkpoint_callback
    checkpoint = best.best_model_path or str(Path(trainer.log_dir) / "checkpoints" / "last.ckpt")
    rows = [["K", str(found.insert_layer)], ["started from", at["load_path"]], ["checkpoint", checkpoint]]
    if best.best_model_path:  # else it ended within the first epoch, before any validation
        rows += [[best.monitor, f"{float(best.best_model_score):.2f} %"]]
    rows += _answer(train | at | {"test_only": True, "load_path": checkpoint}, _run)
    rows += [["seconds of this command", f"{time.perf_counter() - start:.0f}"]]
    if trainer.is_global_zero:
        page = update_search(found.path, found.record | {"trained": rows})
        print(f"\nSearch and training: {found.record['verdict']}")
        print("\n".join(f"  {name:26}{value}" for name, value in rows) + f"\nAll on one page: {page}")
        print(f"Next:\n  {ask(train, checkpoint)}")


def two_stages(named: Sequence[str], typed: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checked settings of the search and of the training that belong to an experiment of either.

    named: experiment, `shapes` and files, as given; typed: the settings on the command line. Raises UserError where no
    experiment is given, and for a setting that the command makes itself.
    """
    experiment = next((word for word in named if word in NAMED), None)
    if experiment is None:
        raise UserError("search_and_train needs an experiment: write search_and_train with dvp_adaption_bert_vqa ...")
    for source in (typed, *(read_saved(word) for word in named if is_saved(word))):
        given = [key for key in SETTLED if key in source]
        if source.get("resume_from") not in (None, *RESUME_WORDS):
            given.append("resume_from")
        if given:
            raise UserError(
                f"{given[0]} is not for search_and_train, which searches K and goes on there: leave it out."
            )
    own = next(stage for stage in STAGES if experiment.startswith(stage))
    others = [f"{stage}{experiment.removeprefix(own)}" for stage in STAGES]
    search, train = (
        check(settle([stage if word == experiment else word for word in named], typed)) for stage in others
    )
    return search, train


def differences(search: dict[str, Any], train: dict[str, Any]) -> str:
    """What the two stages use, where they differ, as a table."""
    lines = [f"  {'':20}{'search':>16}{'training':>16}"]
    nothing = dict(idle(search, search)) | dict(idle(train, train))
    for key in search:
        if search[key] != train[key] and key not in UNTOLD and key not in nothing:
            lines.append(f"  {key:20}{search[key]!s:>16}{train[key]!s:>16}")
    return f"{search['exp_name']}, then {train['exp_name']} at its K from its weights. They differ in\n" + "\n".join(
        lines
    )


def _stage(title: str, config: dict[str, Any], run: Any) -> "pl.Trainer":
    if is_first_process():
        print(f"\n{title}", flush=True)
    return carry_out(config, run)


def _answer(config: dict[str, Any], run: Any) -> list[list[str]]:
    """What the test said, and where its answers lie; nothing where the tables of the test are not there."""
    if missing_tables(config):
        if is_first_process():
            print("\n3 of 3: no test, since its tables are not there")
        return []
    trainer = _stage("3 of 3: answers to the test questions", config, run)
    scores = [[name, f"{float(value):.2f} %"] for name, value in trainer.callback_metrics.items()]
    written = trainer.lightning_module.written
    return scores + ([["answers", str(written)]] if written else [])
