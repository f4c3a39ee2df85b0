"""search.json, the record of a search: what was found, how surely, and with which settings; and who may use it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dvp.errors import UserError
from dvp.files import read_json, require_fields, write_json
from dvp.manifest import read_manifest
from dvp.search.bandit import policy_verdict

VERSION = 1
CLAIM = "claim.json"  # in the folder of a run, from its start on: its settings
# K is that of these settings; paths are compared as places.
SAME = ("datasets", "language_model", "tokenizer", "clip_model")
PATHS = ("tokenizer", "clip_model", "data_root")


AGAIN = "remove it, or search again"
FIRST_FIELDS = {"insert_layer": int, "finished": bool, "probabilities": list, "config": dict}
FIELDS = {name: kind for name, kind in FIRST_FIELDS.items() if name != "probabilities"}
FIELDS |= {"found": bool, "decided": bool, "verdict": str, "tables": dict | None}
Tables = dict[str, int | list]  # name -> bytes, or bytes and hash


class Found(NamedTuple):
    """A search on disk: where its record lies, and what it says."""

    path: Path
    record: dict[str, Any]

    @property
    def insert_layer(self) -> int:
        """K."""
        return self.record["insert_layer"]

    @property
    def checkpoint(self) -> Path:
        """Its last checkpoint; raises UserError where it has none."""
        path = self.path.parent / "checkpoints" / "last.ckpt"
        if not path.exists():
            raise UserError(f"The search {self.path} has no {path} to start from: search again, or start without it.")
        return path


def tables_of(data_root: str | Path, files: str) -> Tables:
    """The Arrow files of a task (those that begin with `files`) by name: their bytes, of converted ones with the hash.

    They tell data sets apart.
    """
    manifest = read_manifest(data_root, files)
    made = manifest.files if manifest else {}
    sizes = {path.name: path.stat().st_size for path in sorted(Path(data_root).glob(f"{files}_*.arrow"))}
    return {name: [size, made[name]["hash"]] if name in made else size for name, size in sizes.items()}


def write_search(path: Path, search: dict[str, Any]) -> None:
    """Write the record of a search, whole."""
    write_json(path, {"version": VERSION} | search)


def read_search(path: Path) -> dict[str, Any]:
    """The record of a search, of any version; raises UserError for one that is newer or damaged."""
    search = read_json(path, remedy=AGAIN)
    version = search.get("version", 0)
    require_fields(path, {"version": version}, {"version": int}, AGAIN)
    if version > VERSION:
        raise UserError(f"{path} has format {version}, this code reads up to {VERSION}: take the code that wrote it.")
    require_fields(path, search, FIELDS if version else FIRST_FIELDS, AGAIN)
    if not all(isinstance(one, int | float) for one in search.get("probabilities", [])):
        raise UserError(f"{path} has probabilities that are no numbers: {AGAIN}.")
    if version == 0:  # of before there was a second rule: it says K and no more
        verdict = policy_verdict(search["probabilities"])
        known = {"found": verdict.found, "decided": verdict.decided, "verdict": verdict.words}
        return {"kab": "published", **known, "tables": None} | search
    return search


def result_lines(search: dict[str, Any], place: Path) -> str:
    """What a search has to say at its end: K, how sure that is, what each arm scored, and where the rest stands."""
    name, column = ("z", search["z"]) if "z" in search else ("p", search["probabilities"])
    rows = [f"{'layer':>7}{'mean score':>12}{name:>8}"]
    for arm, (mean, value) in enumerate(zip(search["mean_scores"], column, strict=True)):
        cells = ("-" if number is None else f"{number:.2f}" for number in (mean, value))
        rows.append(f"{arm:7}" + "{:>12}{:>8}".format(*cells))
    ended = "" if search["finished"] else ", not finished"
    cost = f"{search['updates']} updates, {search['seconds']:.0f} s{ended}"
    words = f"\nSearch (kab={search['kab']}): {search['verdict']}\n" + "\n".join(rows)
    use = f"; take it with insert_layer={search['insert_layer']}" if search["found"] and search["finished"] else ""
    return f"{words}\n{cost}{use}; details in {place}"


def latest_search(
    log_dir: Path, config: dict[str, Any], tables: Tables, experiment: str, starts: bool = False
) -> Found:
    """The newest search under `log_dir` whose settings agree and that found something; says which, and how surely.

    One that trained what this run trains, adapters or all, goes before the others. tables: those of this run's task;
    experiment: what would search; starts: its weights are asked for, too. Raises UserError with the command to run
    where there is none.
    """
    asked = "start_from=search" if starts else "insert_layer=auto"
    found, passed_over = agreeing_search(log_dir, config, tables, starts)
    if found:
        if passed_over:
            many = "" if len(passed_over) == 1 else f"{len(passed_over)} searches, such as "
            print(f"{asked} passes over {many}{passed_over[0]}")
        trained = found.record["config"].get("use_adapter", config["use_adapter"])
        searched = "" if trained == config["use_adapter"] else f" (searched with {trained_parts(trained)})"
        print(f"{asked}: K = {found.insert_layer}, from {found.path}: {found.record['verdict']}{searched}")
        return found
    passed_over = _not_ended(log_dir, config) + passed_over
    there = f" ({'; '.join(passed_over[:3])})" if passed_over else ""
    raise UserError(
        f"{asked} found no search in {log_dir} that tells K{there}: run `python run.py with {experiment} ...` first, "
        "or give a layer."
    )


def agreeing_search(
    log_dir: Path, config: dict[str, Any], tables: Tables, starts: bool = False
) -> tuple[Found | None, list[str]]:
    """The search that `latest_search` takes, None where there is none, and which others were passed over, and why.

    Those of other settings or tables come last.
    """
    near: list[str] = []
    others: list[str] = []
    for path, search in _newest_first(log_dir, config["use_adapter"]):
        other = _other(search, config, tables)
        reason = other or useless(path, search) or (_trained_otherwise(search, config) if starts else "")
        if not reason:
            return Found(path, search), near + others
        (others if other else near).append(f"{path}: it {reason}")
    return None, near + others


def _trained_otherwise(search: dict[str, Any], config: dict[str, Any]) -> str:
    """Why this run cannot start from the weights of a search; empty if it can."""
    instead = "or take its K alone with insert_layer=auto"
    here, there = config["use_adapter"], search["config"].get("use_adapter", True)
    if here and there != here:
        trained, wanted = trained_parts(there), trained_parts(here)
        return f"trained {trained}, and this run {wanted}: search with use_adapter={here}, {instead}"
    then, now = (one.get("prompt_tokens", 1) for one in (search["config"], config))  # older records know of one alone
    if then != now:
        return f"trained prompt_tokens={then}: search with prompt_tokens={now}, {instead}"
    return ""


def _not_ended(log_dir: Path, config: dict[str, Any]) -> list[str]:
    """The searches with the same settings that have written down no K, the newest first, and what goes on with them."""
    found = []
    for claim in sorted(log_dir.rglob(CLAIM), key=lambda path: path.stat().st_mtime, reverse=True):
        folder, then = claim.parent, read_json(claim).get("config") or {}
        if then.get("search_stage") and not (folder / "search.json").exists() and not _differs(then, config):
            last = folder / "checkpoints" / "last.ckpt"
            goes_on = f"; resume_from={last} goes on with it" if last.exists() else ""
            found.append(f"{folder}: it was interrupted, or still runs{goes_on}")
    return found


def trained_parts(use_adapter: bool | str) -> str:
    """What a run trains of its language model, in words, by its `use_adapter`."""
    words = {True: "adapters", False: "the whole language model", "frozen": "none of the language model"}
    return words.get(use_adapter) or f"{use_adapter} adapters"


def search_beside(checkpoint: Path) -> Found:
    """The search that a checkpoint in its run's folder is of; raises UserError where that has no record of K."""
    path = checkpoint.absolute().parents[1] / "search.json"
    if path.is_file():
        return Found(path, read_search(path))
    raise UserError(
        f"{checkpoint} is of a search that has not ended, or was moved: {path} is not there to tell K; give it."
    )


def _newest_first(log_dir: Path, use_adapter: bool | str) -> Iterable[tuple[Path, dict[str, Any]]]:
    found = [(path, read_search(path)) for path in log_dir.rglob("search.json")]

    def order(entry: tuple[Path, dict[str, Any]]) -> tuple[bool, float]:
        path, search = entry
        return search["config"].get("use_adapter", use_adapter) == use_adapter, path.stat().st_mtime

    return sorted(found, key=order, reverse=True)


def _other(search: dict[str, Any], config: dict[str, Any], tables: Tables) -> str:
    """How a search was of other settings or tables than this run; empty if it was of the same."""
    if differs := _differs(search["config"], config):
        return differs
    if search["tables"] is None:
        same = _place(search["config"].get("data_root", config["data_root"])) == _place(config["data_root"])
    else:
        # Tables of the test may have come since.
        same = all(name in tables and _same(then, tables[name]) for name, then in search["tables"].items())
    return "" if same else f"searched on other tables than those in {config['data_root']}"


def _differs(then: dict[str, Any], config: dict[str, Any]) -> str:
    """How the settings of a search were others than those of this run; empty if they were the same."""
    for key in SAME:
        there, here = then.get(key, config[key]), config[key]
        if (_place(there) != _place(here)) if key in PATHS else there != here:
            return f"was a search with {key}={there}, not {here}"
    return ""


def _same(then: int | list, now: int | list) -> bool:
    """Whether two tables of a name are the same; where one has no hash, as in older records, their bytes have to do."""
    if isinstance(then, list) and isinstance(now, list):
        return then == now
    return (then[0] if isinstance(then, list) else then) == (now[0] if isinstance(now, list) else now)


def useless(path: Path, search: dict[str, Any]) -> str:
    """Why the search of this record tells no K, and what can be had of it; empty if it tells one."""
    if not search["finished"]:
        return "was not finished"
    if search["config"].get("image_tokens") == "zero":
        return "was blind (image_tokens=zero)"
    if search["found"]:
        return ""
    last = f"load_path={path.parent / 'checkpoints' / 'last.ckpt'} insert_layer={search['insert_layer']}"
    return f"is {search['verdict']}, or go on from its leader so far, {last}"


def _place(path: str) -> str:
    return os.path.abspath(path)
