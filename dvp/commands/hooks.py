"""What happens before any verb: wrong values are refused, and the run is written down once."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import Logger
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.run import Run

from dvp.commands.early import check_checkpoint, check_devices, check_launcher, check_start, on_cpu_without_gpus
from dvp.commands.idle import idle, unread
from dvp.commands.next import no_layer_given
from dvp.config import check, check_values, ex, is_saved, one_task, read_saved, settle
from dvp.encoders import read_folder
from dvp.errors import UserError
from dvp.files import RESUME_WORDS, is_published, read_description, require_writable
from dvp.runs.compiled import place_compiled
from dvp.runs.folder import is_first_process
from dvp.runs.told import PLACES, refuse_other_settings, settings_told
from dvp.tasks import TASKS

OBSERVED = ("main", "search_and_train", "sweep")  # the commands that train, and so are written down


class Record(FileStorageObserver):
    """Sacred's record of a run under log_dir; a start that fails leaves none."""

    began = False
    cut_off = False  # it could not be written

    def started_event(self, *about: Any, **named: Any) -> str | None:
        """Write down the start. Raises UserError, and leaves nothing, where there is no room for it."""
        try:
            return super().started_event(*about, **named)
        except OSError as error:
            raise UserError(
                f"{self.basedir} could not be written ({error.strerror or error}): free the place or choose another "
                "log_dir."
            ) from error

    def failed_event(self, fail_time: Any, fail_trace: Any) -> None:
        """Write down the failure of a run that had begun; remove the record of another."""
        if self.began:
            with self._if_there_is_room():
                super().failed_event(fail_time, fail_trace)
            return
        shutil.rmtree(self.dir)
        if not any(path.name.isdigit() for path in Path(self.basedir).iterdir()):
            shutil.rmtree(self.source_dir)
            for folder in (Path(self.basedir), Path(self.basedir).parent):
                if not any(folder.iterdir()):
                    folder.rmdir()

    def heartbeat_event(self, *about: Any, **named: Any) -> None:
        """Write down what was printed so far."""
        with self._if_there_is_room():
            super().heartbeat_event(*about, **named)

    def completed_event(self, *about: Any, **named: Any) -> None:
        """Write down the end."""
        with self._if_there_is_room():
            super().completed_event(*about, **named)

    @contextmanager
    def _if_there_is_room(self) -> Iterator[None]:
        """Say once where a record has no room: what a run makes is worth more than its record, and says so itself."""
        try:
            yield
        except OSError as error:
            if not self.cut_off:
                self.cut_off = True
                place = f"The record {self.dir} is not complete ({error.strerror or error})"
                print(f"{place}: free the place before the next run.", file=sys.stderr)


@ex.config_hook
def before_a_run(config: dict[str, Any], command_name: str, logger: Logger) -> dict[str, Any]:
    """Refuse wrong values before anything is loaded or written; let rank 0, and no other, write the run down.

    Returns what a checkpoint tells. Of that Sacred takes what neither the command line nor an experiment nor a config
    file has set.
    """
    check_values(config)
    if command_name in (*OBSERVED, "predict", "export"):
        for key in ("load_path", "resume_from"):
            check_checkpoint(key, config[key])
    where = on_cpu_without_gpus() if _answers(command_name, config) else {}
    known = where | TOLD.get(command_name, lambda config: {})(config | where)
    if command_name in (*OBSERVED, "encode", "doctor"):
        known = _size_of_encoder(config | known) | known
    if command_name in (*OBSERVED, "encode"):
        check_devices((config | where)["num_gpus"], config["strategy"])  # before it is asked what fits on a device
        checked = check(config | known)
        if command_name in OBSERVED:
            check_launcher(checked)
        if not _tests_own_checkpoint(config):  # else what was typed, which only Sacred knows here, counts
            check_start(checked)
    if command_name in OBSERVED:
        require_writable(Path(checked["log_dir"]))
        place_compiled(Path(checked["log_dir"]))
        ex.observers[:] = [Record(Path(checked["log_dir"]) / "sacred")] if is_first_process() else []
    place_compiled(None)
    return known


@ex.pre_run_hook
def say_what_is_idle(_run: Run, _config: dict[str, Any]) -> None:
    """Say on rank 0 which typed settings do nothing; refuse those that the checkpoint to test does not agree with.

    And GPUs that are typed and not there; where none is typed, the CPU answers without them, and this is said. And that
    K is the default's, where nobody has chosen it.
    """
    typed, command_name = _run.meta_info.get("config_updates", {}), _run.main_function.__name__
    main = command_name == "main"
    if _answers(command_name, _config):
        if command_name != "doctor":  # which lists it among other faults
            check_devices(_config["num_gpus"], _config["strategy"])
        if settle(_run.meta_info["named_configs"], typed)["num_gpus"] != _config["num_gpus"] and is_first_process():
            print("There is no GPU here: the CPU answers (num_gpus=0).", file=sys.stderr)
    found = idle(typed, check(_config)) if main else unread(typed, _run)
    if main and _tests_own_checkpoint(_config):
        checked = check(_config)
        refuse_other_settings(checked["load_path"], _told_by_checkpoint(_config), checked)
        check_start(checked)
    for key, why in found if is_first_process() else ():
        print(f"{key}={typed[key]} has no effect: {why}.", file=sys.stderr)
    named = _run.meta_info["named_configs"]
    if main and is_first_process() and _chose_no_layer(_config, named, typed):
        print(no_layer_given(check(_config), named, typed), file=sys.stderr)


def _chose_no_layer(config: dict[str, Any], named: Sequence[str], typed: dict[str, Any]) -> bool:
    """Whether a training begins at a layer that neither the command line nor a file nor a checkpoint has given."""
    given = [typed, *(read_saved(word) for word in named if is_saved(word))]
    begins = not config["load_path"] and config["resume_from"] in (None, "", *RESUME_WORDS)
    trains = not config["search_stage"] and not config["test_only"]
    return trains and begins and not config["start_from"] and not any("insert_layer" in source for source in given)


def _answers(command_name: str, config: dict[str, Any]) -> bool:
    """Whether a checkpoint is asked, which a CPU can do, too."""
    return command_name in ("predict", "demo") or command_name in ("main", "doctor") and config["test_only"]


def _tests_own_checkpoint(config: dict[str, Any]) -> bool:
    return config["test_only"] and Path(str(config["load_path"] or "")).is_dir() and bool(config["load_path"])


def _told_by_checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    """What the checkpoint to load tells of its settings; that K is a search's, where one is started from."""
    place = Path(config["load_path"] or "nothing")
    if _tests_own_checkpoint(config):
        return settings_told(str(place), on_gpu=config["num_gpus"] > 0)
    if not is_published(str(place)):
        return {"insert_layer": "auto"} if _starts_from_search(config, place) else {}
    from dvp.kinds import KINDS  # here, so that help and mistakes answer at once

    known = KINDS[TASKS[one_task(config["datasets"])].kind].settings_in(str(place))
    return known | {"datasets": [known["datasets"]]} if "datasets" in known else known


def _told_if_whole(config: dict[str, Any]) -> dict[str, Any]:
    """The same; nothing of a checkpoint at fault, which is listed among others."""
    try:
        for key in ("load_path", "resume_from"):
            check_checkpoint(key, config[key])
        return _told_by_checkpoint(config)
    except UserError:
        return {}


def _size_of_encoder(config: dict[str, Any]) -> dict[str, Any]:
    """The size of pictures that the image encoder's files name, where the setting is at its default.

    Nothing of files at fault, of which the checks tell.
    """
    if config["image_size"] != ex.settings["image_size"]:
        return {}
    try:
        told = read_folder(str(config["clip_model"]))
    except UserError:
        return {}
    return {"image_size": told.prepared.size} if told else {}


def _base_of_checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    path = str(config["load_path"] or "")
    told = settings_told(path, on_gpu=False) if path and Path(path).is_dir() else {}
    return {key: told[key] for key in PLACES if key in told}


# What a command takes from its checkpoint where it is not typed
TOLD: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "main": _told_by_checkpoint,
    "doctor": _told_if_whole,
    "predict": _base_of_checkpoint,
    "demo": _base_of_checkpoint,
    "export": _base_of_checkpoint,
}


def _starts_from_search(config: dict[str, Any], place: Path) -> bool:
    if config["search_stage"] or not place.is_dir():
        return not config["test_only"] and config["start_from"] == "search"
    return bool(read_description(str(place)).get("search_stage"))
