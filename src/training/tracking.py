"""Weights & Biases: one run per fold, one for the experiment. It may fail, hang or be switched off; training goes on.

Under `wandb agent` the experiment's run is the sweep's own, by whose score the sweep compares; the folds' are as ever.

All of W&B's work for a run happens on one daemon thread. The training loop only puts calls into that thread's queue, so
a server that is slow or gone costs it nothing; what fails there is told once, in one line, and ends that run's tracking
alone. Waits at the start, at the end of a fold and at the end of the program are bounded by the seconds below.
wandb is imported only where a run is tracked: that takes over half a second.
"""

import atexit
import contextlib
import functools
import io
import os
import re
import secrets
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from src.config import Config, read_yaml
from src.errors import UserError
from src.files import replacing

if TYPE_CHECKING:
    import numpy as np
    import wandb

ID = "wandb_id.txt"  # in the folder of what is tracked
PROBE_SECONDS = 10.0  # how long the server may take to say anything at all, before the run is kept offline
INIT_SECONDS = 20.0  # how long it may take to take the run
START_SECONDS = 75.0  # after these a start counts as hung: W&B's own limits (30 s for its service, the above) did not hold
FINISH_SECONDS = 30.0  # how long the end of a fold waits for its uploads, which then go on beside the next fold
UPLOAD_SECONDS = 600.0  # when W&B itself gives up on a fold's uploads
EXIT_SECONDS = 60.0  # how long uploads may hold up the end of the program
THUMBNAIL = 224  # longest side of a picture in the table of worst images, pixels

_unreachable = threading.Event()  # the server could not be used once: what follows doesn't wait for it again
_open: "set[Tracker]" = set()  # not finished yet; an error may end the program before they are


def track(
    config: Config,
    run: str,
    job_type: Literal["train", "cv"],
    folder: Path,
    fold: str | None = None,
    said: Callable[[str], Any] = print,
) -> "Tracker":
    """A tracker for one fold (`job_type` train) or for the whole experiment (cv) of the run called `run`.

    `folder` keeps W&B's id of it, so that a resumed fold or a later prediction adds to the same row of the dashboard.
    `said` gets every line meant for the user. Raises UserError only where mode online is asked for and no key is found.
    """
    sweep = _sweep()  # before W&B is set up
    mode = _mode(config.tracking.mode, said)
    if mode == "disabled":
        return Tracker(None, said)
    described = {
        "project": config.tracking.project or config.competition.name,
        "entity": config.tracking.entity,
        "group": run,
        "name": f"{run}/cv" if fold is None else f"{run}/fold-{fold}",
        "job_type": job_type,
        "tags": [config.competition.name, config.model.name],
        "config": config.model_dump(mode="json") | {"run": run, "fold": fold},
    }
    if sweep is not None:
        described |= {"project": None, "entity": None}  # the sweep's, which its agent has told W&B
    if sweep is not None and job_type == "cv":
        described |= {"id": sweep.run, "sweep_id": sweep.id, "config": described["config"] | sweep.parameters}
    return Tracker(lambda: _begin(mode, described | {"id": _identity(folder, described.get("id"))}, said), said)


class Tracker:
    """Where a run's numbers and pictures go. Calls return at once; without a W&B run behind it they do nothing."""

    def __init__(
        self, begin: "Callable[[], wandb.Run] | None", said: Callable[[str], Any] = print, patience: float = FINISH_SECONDS
    ) -> None:
        """`begin` starts the W&B run; none: nothing is tracked. `patience`: how long finish() waits, seconds."""
        self._begin, self._said, self._patience = begin, said, patience
        self._calls: SimpleQueue[tuple[str, Callable[[Any], Any]]] = SimpleQueue()
        self._started, self._failed, self._where = threading.Event(), False, ""
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        if begin is not None:
            _open.add(self)
            self._thread.start()
            if not self._started.wait(START_SECONDS):
                self._give_up(f"not started within {START_SECONDS:g} s")

    def log(self, row: dict[str, float]) -> None:
        """An epoch's row of history.csv, "epoch" included, which is W&B's step too: a resumed fold counts on from there."""
        self._post("logging an epoch", lambda run, row=dict(row): run.log(row, step=int(row["epoch"]), commit=True))

    def log_confusion(self, labels: "np.ndarray", predicted: "np.ndarray", classes: Sequence[str]) -> None:
        """How often each class is taken for each other one; `labels` and `predicted`: class indices, shape (rows,)."""
        given = labels.tolist(), predicted.tolist(), list(classes)
        self._post("the confusion matrix", lambda run: run.log({"confusion_matrix": _confusion(*given)}))

    def log_worst(self, rows: list[dict[str, Any]]) -> None:
        """A table with pictures of validation images. A row has: id, path (of the image), label, predicted, loss."""
        self._post("the worst images", lambda run, rows=list(rows): run.log({"worst_images": _table(rows)}))

    def log_artifact(self, name: str, type: str, files: list[Path]) -> None:
        """Files kept with the run, named `name` less the characters that W&B refuses. They must stay where they are."""
        name, files = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:128], [Path(file).resolve() for file in files]
        self._post(f"the artifact {name}", lambda run: run.log_artifact(_artifact(name, type, files)))

    def log_page(self, name: str, path: Path) -> None:
        """An HTML file that needs no other, shown among the run's charts."""
        self._post(f"the page {name}", lambda run: run.log({name: _page(path)}))

    def summarize(self, values: dict[str, float | str]) -> None:
        """The run's final scores: the columns by which the dashboard compares runs."""
        self._post("the scores", lambda run, values=dict(values): run.summary.update(values))

    def finish(self) -> None:
        """Ends the run and waits for its uploads, though no longer than `patience`; they then go on in the background."""
        if self not in _open:
            return
        self._post("finishing", lambda run: run.finish())
        _open.discard(self)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            _unreachable.set()
            self._give_up(f"uploads not done after {self._patience:g} s")

    def _post(self, what: str, call: Callable[[Any], Any]) -> None:
        if self in _open:
            self._calls.put((what, call))

    def _work(self) -> None:
        """The thread's life: start the run, make the posted calls in their order, end with finish()'s."""
        run = self._guarded("starting", self._start)
        self._started.set()
        what = "finishing" if run is None else "starting"
        while what != "finishing":
            what, call = self._calls.get()
            if what == "finishing" or not self._failed:
                self._guarded(what, lambda call=call: call(run))

    def _start(self) -> Any:
        run = self._begin()
        self._where = _where(run)
        return run

    def _guarded(self, what: str, call: Callable[[], Any]) -> Any:
        """The one place where W&B's failures end. SystemExit too: W&B raises it where its service has crashed."""
        try:
            return call()
        except (Exception, SystemExit) as error:
            return self._give_up(f"{what}: {_one_line(error)}")

    def _give_up(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            remedy = f"; `wandb sync {self._where}` uploads what is missing" if self._where else " without it"
            self._said(f"W&B: {why}. Training goes on{remedy}")


# Starting and stopping W&B


@dataclass(frozen=True)
class _Sweep:
    """The sweep for which `wandb agent` started this process: its id, that of its run, the values it chose."""

    id: str
    run: str
    parameters: dict[str, Any]


@functools.cache
def _sweep() -> _Sweep | None:
    """Taken out of the environment, where W&B would find it and make the sweep's one run of every fold, too."""
    names = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
    if not all(os.environ.get(name) for name in names):
        return None
    id, run, file = (os.environ.pop(name) for name in names)
    chosen: dict[str, Any] = {}
    with contextlib.suppress(UserError):
        chosen = read_yaml(Path(file))
    return _Sweep(id, run, {name: entry["value"] for name, entry in chosen.items() if name != "wandb_version"})


def _mode(wanted: str, said: Callable[[str], Any]) -> str:
    """online, offline or disabled. `auto` heeds WANDB_MODE and `wandb offline`, and is online only where a key is found."""
    if wanted in ("offline", "disabled"):
        return wanted
    try:
        settings = _set_up().settings
        if wanted == "auto" and settings.mode in ("offline", "dryrun", "disabled"):
            return settings.mode.replace("dryrun", "offline")
        found = _has_key(settings.base_url)
    except Exception as error:
        said(f"W&B: {_one_line(error)}. Training goes on without it")
        return "disabled"
    if not found and wanted == "online":
        raise UserError(
            f"tracking.mode: online needs a W&B API key for {settings.base_url}, and none (or none of the right form) is "
            "found: run `wandb login`, set WANDB_API_KEY, or choose --tracking.mode offline"
        )
    return "online" if found else "offline"


def _has_key(host: str) -> bool:
    """Whether W&B itself would find a key: in the environment, .netrc or its settings. Never asks for one."""
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        return wbauth.authenticate_session(host=host, source="", prompt=False, update_session=False) is not None
    except AuthenticationError:  # a key of the wrong form
        return False


def _set_up() -> Any:
    """W&B's service for this process. Its chatter is off; its warnings stay, as they alone tell of refused uploads."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it delays the exit by 10 s where the server hangs
    os.environ.setdefault("WANDB_DATA_DIR", os.path.abspath("wandb"))  # pictures to upload: beside the runs, not at home
    import wandb

    service = wandb.setup(wandb.Settings(show_info=False))
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)  # the last to come is the first to run: before W&B's own hook, which waits without a limit
    return service


def _at_exit() -> None:
    for tracker in list(_open):
        tracker.finish()
    _tear_down()
    # W&B's threads tell on stderr that its service has gone. One that Python stops while it prints keeps the stream locked,
    # and the program then aborts with status -6, whatever its own was.
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("tracking")]
    for thread in threads:
        thread.join(1.0)
    if any(thread.is_alive() for thread in threads):
        sys.stdout.flush()
        sys.stdout = sys.stderr = io.StringIO()


def _tear_down() -> None:
    """Stops W&B's service, and with it the hook by which W&B would wait for it at exit."""

    def stop() -> None:
        import wandb

        with contextlib.suppress(Exception, SystemExit):
            wandb.teardown()

    thread = threading.Thread(target=stop, name="tracking-end", daemon=True)
    thread.start()
    thread.join(EXIT_SECONDS)


def _begin(mode: str, described: dict[str, Any], said: Callable[[str], Any]) -> "wandb.Run":
    """Starts the W&B run, offline where the server can't be used, and says in one line where it is."""
    if mode == "online" and not _unreachable.is_set():
        try:
            _probe(_set_up().settings.base_url)
            run = _init("online", described)
            said(f"W&B: {run.url}")
            return run
        except Exception as error:
            _unreachable.set()
            said(f"W&B: offline from here on, as the server can't be used ({_one_line(error)})")
            if not isinstance(error, OSError):
                _tear_down()  # a start that failed would keep the id in use
    run = _init("offline", described)
    said(f"W&B: offline run in {_where(run)}; `wandb sync {_where(run)}` uploads it")
    return run


def _probe(host: str) -> None:
    """Raises OSError where nothing answers at `host`: cheaper to find out so than by a start that fails."""
    unchecked = ssl._create_unverified_context()  # an answer is all that counts, and nothing secret is sent
    with contextlib.suppress(urllib.error.HTTPError):  # an answer as well
        urllib.request.urlopen(host, timeout=PROBE_SECONDS, context=unchecked).close()


def _init(mode: str, described: dict[str, Any]) -> "wandb.Run":
    given = dict(described)
    sweep_id = given.pop("sweep_id", None)
    _set_up()
    import PIL.Image
    import wandb

    PIL.Image.preinit()  # two trackers' threads that make their first picture at once would find half of the formats
    settings = wandb.Settings(
        silent=True,
        console="off",  # what the program prints is not captured
        save_code=False,
        disable_code=True,
        disable_git=True,
        x_save_requirements=False,
        init_timeout=INIT_SECONDS,
        finish_timeout=UPLOAD_SECONDS,
        finish_timeout_raises=True,
        reinit="create_new",  # runs of one process don't touch each other
        sweep_id=sweep_id,
    )
    run = wandb.init(mode=mode, dir=".", resume="allow", settings=settings, **given)
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def _identity(folder: Path, given: str | None = None) -> str:
    """W&B's id for what `folder` holds: made once, then read. `given`: that of a sweep's run takes its place."""
    file = folder / ID
    if given or not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            draft.write_text(given or secrets.token_hex(4), encoding="utf-8")
    return given or file.read_text(encoding="utf-8").strip()


def _where(run: "wandb.Run") -> str:
    """The folder of the run's own files, as `wandb sync` takes it."""
    return os.path.relpath(Path(run.dir).parent)


# What is logged


def _confusion(labels: list[int], predicted: list[int], classes: list[str]) -> Any:
    import wandb

    return wandb.plot.confusion_matrix(y_true=labels, preds=predicted, class_names=classes, title="Confusion matrix")


def _table(rows: list[dict[str, Any]]) -> "wandb.Table":
    import wandb

    table = wandb.Table(columns=["id", "image", "label", "predicted", "loss"])
    for row in rows:
        image = _thumbnail(row["path"])
        table.add_data(str(row["id"]), image, str(row["label"]), str(row["predicted"]), float(row["loss"]))
    return table


def _thumbnail(path: Path) -> "wandb.Image | None":
    """The picture in RGB, at most THUMBNAIL pixels wide and high; none where it can't be decoded."""
    import cv2
    import wandb

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        return None
    scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return wandb.Image(cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB), file_type="jpg")


def _page(path: Path) -> "wandb.Html":
    import wandb

    return wandb.Html(path.read_text(encoding="utf-8"), inject=False)


def _artifact(name: str, type: str, files: list[Path]) -> "wandb.Artifact":
    import wandb

    artifact = wandb.Artifact(name, type)
    for file in files:
        artifact.add_file(str(file), policy="immutable", skip_cache=True)  # else W&B would copy the weights twice
    return artifact


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
