"""Weights & Biases: one run per fold, one for the experiment as a whole. It may fail, hang or be switched off: training goes on.

All of W&B's work happens on one daemon thread per Tracker. The training loop only puts calls into that thread's queue, so
a server that is slow or gone costs it nothing; whatever fails there is told once, in one line, and ends the tracking of
that run alone. Imports wandb only when a run is tracked: it takes over half a second.
"""

import atexit
import os
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from src.config import Config
from src.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import wandb

INIT_SECONDS = 20.0  # how long W&B's server may take to answer before the run is kept offline
START_SECONDS = 60.0  # after these the start counts as hung: W&B's own limits (service 30 s, server 20 s) have not held
FINISH_SECONDS = 30.0  # how long the end of a fold waits for its uploads, which then go on beside the next fold
UPLOAD_SECONDS = 120.0  # after these W&B itself gives up on uploads: the longest that they can hold up the program's end
THUMBNAIL = 224  # longest side of a picture in the table of worst images, pixels

_unreachable = threading.Event()  # the server did not answer once: the next folds don't wait for it again


def track(
    config: Config,
    run: str,
    job_type: Literal["train", "cv"],
    folder: Path,
    fold: str | None = None,
    said: Callable[[str], Any] = print,
) -> "Tracker":
    """A tracker for one fold (`job_type` train) or for the experiment (cv) of the run called `run`.

    `folder` keeps W&B's id of it, so that a resumed fold or a later prediction adds to the same row of the dashboard.
    `said` gets every line meant for the user. Raises UserError only where mode online was asked for and no key is found.
    """
    mode = _mode(config.tracking.mode, said)
    if mode == "disabled":
        return Tracker(None, said)
    described = {
        "project": config.tracking.project or config.competition.name,
        "entity": config.tracking.entity,
        "group": run,
        "name": f"{run}/{'cv' if fold is None else f'fold-{fold}'}",
        "job_type": job_type,
        "tags": [config.competition.name, config.model.name],
        "config": config.model_dump(mode="json") | {"run": run, "fold": fold},
    }
    return Tracker(lambda: _begin(mode, described | {"id": _identity(folder)}, said), said)


class Tracker:
    """Where a fold's numbers and pictures go. Every call returns at once; without a run behind it, it does nothing."""

    def __init__(
        self, begin: "Callable[[], wandb.Run] | None", said: Callable[[str], Any] = print, patience: float = FINISH_SECONDS
    ):
        """`begin` starts the W&B run; none: nothing is tracked. `patience`: the seconds that finish() waits for uploads."""
        self._begin, self._said, self._patience = begin, said, patience
        self._calls: SimpleQueue[tuple[str, Callable[[wandb.Run], Any]]] = SimpleQueue()
        self._started, self._closed, self._failed = threading.Event(), begin is None, False
        self._where = ""
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        if begin is not None:
            self._thread.start()
            if not self._started.wait(START_SECONDS):
                self._give_up(f"not started within {START_SECONDS:g} s")
            atexit.register(self.finish)  # where an error ends the program; before W&B's own hook, which came first

    def log(self, row: dict[str, float]) -> None:
        """An epoch's row of history.csv, "epoch" included. W&B's step is the epoch too: a resumed fold repeats none."""
        row = dict(row)
        self._post("logging an epoch", lambda run: run.log(row, step=int(row["epoch"]), commit=True))

    def log_confusion(self, labels: "np.ndarray", predicted: "np.ndarray", classes: Sequence[str]) -> None:
        """How often each class, by row, was taken for each other; `labels` and `predicted`: class indices, shape (rows,)."""
        indices, names = (labels.tolist(), predicted.tolist()), list(classes)
        self._post("the confusion matrix", lambda run: run.log({"confusion_matrix": _confusion(*indices, names)}))

    def log_worst(self, rows: list[dict[str, Any]]) -> None:
        """A table with pictures of validation images; each row has id, path (of the image), label, predicted and loss."""
        rows = [dict(row) for row in rows]
        self._post("the worst images", lambda run: run.log({"worst_images": _table(rows)}))

    def log_artifact(self, name: str, type: str, files: list[Path]) -> None:
        """Files kept with the run, under `name` less the characters that W&B refuses. They stay where they are, uncopied."""
        name, paths = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII), [Path(file).resolve() for file in files]
        self._post(f"the artifact {name}", lambda run: run.log_artifact(_artifact(name, type, paths)))

    def summarize(self, values: dict[str, float | str]) -> None:
        """The run's final scores: the columns by which the dashboard compares runs."""
        values = dict(values)
        self._post("the scores", lambda run: run.summary.update(values))

    def finish(self) -> None:
        """Ends the run and waits for its uploads, though no longer than `patience`; they then go on in the background."""
        if self._closed:
            return
        self._post("finishing", lambda run: run.finish())
        self._closed = True
        atexit.unregister(self.finish)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._give_up(f"uploads not done after {self._patience:g} s")

    def _post(self, what: str, call: "Callable[[wandb.Run], Any]") -> None:
        if not self._closed:
            self._calls.put((what, call))

    def _work(self) -> None:
        """The thread's life: start the run, make the posted calls in their order, stop after finish()'s."""
        run = self._guarded("starting", self._begin)
        self._where = _where(run) if run is not None else ""
        self._started.set()
        what = "" if run is not None else "finishing"
        while what != "finishing":
            what, call = self._calls.get()
            if what == "finishing" or not self._failed:
                self._guarded(what, lambda call=call: call(run))

    def _guarded(self, what: str, call: Callable[[], Any]) -> Any:
        """The one place where W&B's failures end. SystemExit too: W&B raises it where its service can't go on."""
        try:
            return call()
        except (Exception, SystemExit) as error:
            return self._give_up(f"{what}: {_one_line(error)}")

    def _give_up(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            remedy = f"; `wandb sync {self._where}` uploads what is missing" if self._where else " without it"
            self._said(f"W&B: {why}. Training goes on{remedy}")


# W&B's side: what stands below imports wandb


def _mode(wanted: str, said: Callable[[str], Any]) -> str:
    """online, offline or disabled. `auto` heeds WANDB_MODE and `wandb offline`, and is online only where a key is found."""
    if wanted in ("offline", "disabled"):
        return wanted
    try:
        settings = _set_up().settings
        ambient = {"dryrun": "offline", "offline": "offline", "disabled": "disabled"}.get(settings.mode, "online")
        mode = "online" if wanted == "online" else ambient
        found = mode != "online" or _has_key(settings.base_url)
    except Exception as error:
        said(f"W&B: {_one_line(error)}. Training goes on without it")
        return "disabled"
    if not found and wanted == "online":
        raise UserError(
            f"tracking.mode: online needs a W&B API key for {settings.base_url}, and none (or no valid one) is found: "
            "run `wandb login`, set WANDB_API_KEY, or choose --tracking.mode offline"
        )
    return mode if found else "offline"


def _set_up() -> Any:
    """W&B's settings and service for this process. Its chatter is off; its warnings stay, as they tell of refused uploads."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it delays the exit by 10 s where the server hangs
    os.environ.setdefault("WANDB_DATA_DIR", os.path.abspath("wandb"))  # pictures not yet uploaded: beside the runs, not at home
    import wandb

    return wandb.setup(wandb.Settings(show_info=False))


def _has_key(host: str) -> bool:
    """Whether W&B itself would find a key: in the environment, .netrc or its settings. Never asks for one."""
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    try:
        return wbauth.authenticate_session(host=host, source="", prompt=False, update_session=False) is not None
    except AuthenticationError:  # a key of the wrong form
        return False


def _begin(mode: str, described: dict[str, Any], said: Callable[[str], Any]) -> "wandb.Run":
    """Starts the W&B run, offline where the server does not answer, and says in one line where it is."""
    if mode == "online" and not _unreachable.is_set():
        try:
            run = _init("online", described)
            said(f"W&B: {run.url}")
            return run
        except Exception as error:
            _unreachable.set()
            said(f"W&B: the server can't be reached, so this goes on offline ({_one_line(error)})")
            _set_up().assert_service().inform_finish(described["id"])  # else the id counts as in use
    run = _init("offline", described)
    said(f"W&B: offline run in {_where(run)}; `wandb sync {_where(run)}` uploads it")
    return run


def _init(mode: str, described: dict[str, Any]) -> "wandb.Run":
    _set_up()
    import wandb

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
    )
    run = wandb.init(mode=mode, dir=".", resume="allow", settings=settings, **described)
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def _identity(folder: Path) -> str:
    """W&B's id for what `folder` holds: made once, then read."""
    file = folder / "wandb_id.txt"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(secrets.token_hex(4), encoding="utf-8")
        draft.replace(file)
    return file.read_text(encoding="utf-8").strip()


def _where(run: "wandb.Run") -> str:
    """The folder of the run's own files, as `wandb sync` takes it."""
    return os.path.relpath(Path(run.dir).parent)


def _confusion(labels: list[int], predicted: list[int], names: list[str]) -> Any:
    import wandb

    return wandb.plot.confusion_matrix(y_true=labels, preds=predicted, class_names=names, title="Confusion matrix")


def _table(rows: list[dict[str, Any]]) -> "wandb.Table":
    import wandb

    columns = ["id", "image", "label", "predicted", "loss"]
    data = [
        [str(row["id"]), _thumbnail(row["path"]), str(row["label"]), str(row["predicted"]), float(row["loss"])] for row in rows
    ]
    return wandb.Table(columns=columns, data=data)


def _thumbnail(path: Path) -> "wandb.Image | None":
    """The picture at most THUMBNAIL pixels wide and high, RGB; none where it can't be decoded."""
    import cv2
    import wandb

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        return None
    scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return wandb.Image(cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB), file_type="jpg")


def _artifact(name: str, type: str, files: list[Path]) -> "wandb.Artifact":
    import wandb

    artifact = wandb.Artifact(name[:128], type)
    for file in files:
        artifact.add_file(str(file), policy="immutable", skip_cache=True)  # else W&B copies the weights twice
    return artifact


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
