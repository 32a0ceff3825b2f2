"""W&B without an account or a network: what is recorded offline, and that no failure of it stops or slows training."""

import http.server
import json
import os
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.config import Config, TrackingConfig
from src.training import tracking
from src.training.tracking import Tracker, track

REPOSITORY = Path(__file__).resolve().parents[2]
KEY = "0123456789" * 4  # of the right form, no account's

START = """
from pathlib import Path
import numpy as np
from src.config import Config, TrackingConfig
from src.training import tracking
from src.training.tracking import track
tracking.PROBE_SECONDS = tracking.INIT_SECONDS = 2.0
tracking.EXIT_SECONDS = 1.0
def config(mode="auto"):
    return Config(tracking=TrackingConfig(mode=mode))
"""

FOLD = """
import cv2
cv2.imwrite("tall.png", np.full((500, 300, 3), (255, 0, 0), np.uint8))  # blue, in OpenCV's order
Path("model.safetensors").write_bytes(bytes(1000))
fold = track(config(), "baseline", "train", Path("runs/baseline/fold-2"), fold="2")
for epoch in range(1, 4):
    fold.log({"epoch": epoch, "train_loss": 1 / epoch, "valid_accuracy": 0.25 * epoch})
fold.log_confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog", "horse"])
fold.log_worst([
    {"id": 7, "path": Path("missing.png"), "label": "cat", "predicted": "dog", "loss": np.float32(3)},
    {"id": 8, "path": Path("tall.png"), "label": "dog", "predicted": "cat", "loss": 2.5},
])
fold.log_artifact("baseline/fold 2=model", "model", [Path("model.safetensors")])
fold.summarize({"accuracy": 0.75, "kept": "last"})
fold.finish()
cv = track(config(), "baseline", "cv", Path("runs/baseline"))
cv.summarize({"oof_accuracy": 0.7})
Path("report.html").write_text("<!doctype html><p>Zoë")
cv.log_page("report", Path("report.html"))
cv.finish()
again = track(config(), "baseline", "train", Path("runs/baseline/fold-2"), fold="2")
again.log({"epoch": 4, "train_loss": 0.2})
again.finish()
"""


def execute(folder: Path, script: str, stdin: Any = subprocess.DEVNULL, **environment: str) -> subprocess.CompletedProcess:
    """The script in a process of its own, in `folder` and with nothing of the user's environment but the search path."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(REPOSITORY)} | environment
    command = [sys.executable, "-c", START + textwrap.dedent(script)]
    return subprocess.run(command, cwd=folder, env=environment, stdin=stdin, capture_output=True, text=True, timeout=60)


def offline_runs(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)


def records(file: Path) -> Iterator[Any]:
    """The records of W&B's transaction log: 7 bytes of header, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


def items(entries: Any) -> dict[str, Any]:
    return {"/".join(entry.nested_key) or entry.key: json.loads(entry.value_json) for entry in entries}


def of_kind(file: Path, kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records(file) if record.WhichOneof("record_type") == kind]


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A fold, the experiment's own run and the fold once more, without a key, a network or a terminal."""
    folder = tmp_path_factory.mktemp("offline")
    done = execute(folder, FOLD)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(autouse=True)
def nothing_known_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_unreachable", threading.Event())


def test_without_a_key_runs_are_kept_offline_and_one_line_each_says_how_to_upload_them(offline):
    folder, said = offline
    lines = said.splitlines()
    assert len(lines) == 3
    assert len(offline_runs(folder)) == 3
    for line, file in zip(lines, offline_runs(folder), strict=True):
        where = file.parent.relative_to(folder)
        assert line == f"W&B: offline run in {where}; `wandb sync {where}` uploads it"


def test_a_fold_is_filed_under_its_run_with_its_tags_and_the_resolved_configuration(offline):
    (run,) = of_kind(offline_runs(offline[0])[0], "run")
    assert (run.project, run.run_group, run.display_name, run.job_type) == ("digits", "baseline", "baseline/fold-2", "train")
    assert list(run.tags) == ["digits", "resnet18"]
    assert items(run.config.update) == Config().model_dump(mode="json") | {"run": "baseline", "fold": "2", "_wandb": {}}


def test_the_experiment_is_a_run_of_its_own_with_the_scores_to_compare(offline):
    file = offline_runs(offline[0])[1]
    (run,) = of_kind(file, "run")
    assert (run.run_group, run.display_name, run.job_type) == ("baseline", "baseline/cv", "cv")
    assert any(items(record.update).get("oof_accuracy") == 0.7 for record in of_kind(file, "summary"))


def test_a_page_is_kept_as_it_is(offline):
    (page,) = offline_runs(offline[0])[1].parent.glob("files/media/html/report_*.html")
    assert page.read_text(encoding="utf-8") == "<!doctype html><p>Zoë"


def test_epochs_are_recorded_under_the_names_of_history_csv_with_epoch_as_the_axis(offline):
    file = offline_runs(offline[0])[0]
    rows = [items(row.item) for row in of_kind(file, "history")]
    keys = ("epoch", "train_loss", "valid_accuracy", "_step")
    epochs = [{key: row[key] for key in keys} for row in rows if "train_loss" in row]
    assert epochs == [{"epoch": e, "train_loss": 1 / e, "valid_accuracy": 0.25 * e, "_step": e} for e in (1, 2, 3)]
    defined = [(metric.name, metric.glob_name, metric.step_metric) for metric in of_kind(file, "metric")]
    assert defined == [("epoch", "", ""), ("", "*", "epoch")]


def test_the_final_scores_are_the_summary(offline):
    summary: dict[str, Any] = {}
    for record in of_kind(offline_runs(offline[0])[0], "summary"):
        summary |= items(record.update)
    assert summary["accuracy"] == 0.75
    assert summary["kept"] == "last"


def test_the_confusion_matrix_counts_each_pair_of_classes(offline):
    (table,) = offline_runs(offline[0])[0].parent.glob("files/media/table/confusion_matrix_table_*.table.json")
    counts = {(actual, predicted): n for actual, predicted, n in json.loads(table.read_text())["data"] if n}
    assert counts == {("cat", "cat"): 1, ("cat", "dog"): 1, ("dog", "dog"): 1}


def test_the_worst_images_have_small_pictures_in_their_colours_and_a_lost_file_leaves_a_gap(offline):
    import cv2

    artifacts = {artifact.name.split("-", 2)[-1]: artifact for artifact in of_kind(offline_runs(offline[0])[0], "artifact")}
    files = {Path(entry.path).suffix: Path(entry.local_path) for entry in artifacts["worst_images"].manifest.contents}
    assert files[".jpg"].is_relative_to(offline[0] / "wandb")
    picture = cv2.imread(str(files[".jpg"]))
    assert picture.shape[:2] == (224, 134)
    assert picture[100, 100].argmax() == 0
    table = json.loads(files[".json"].read_text())
    assert table["columns"] == ["id", "image", "label", "predicted", "loss"]
    assert table["data"][0] == ["7", None, "cat", "dog", 3.0]
    assert table["data"][1][1]["format"] == "jpg"


def test_the_model_is_an_artifact_under_a_name_that_is_allowed_and_is_not_copied(offline):
    (artifact,) = [artifact for artifact in of_kind(offline_runs(offline[0])[0], "artifact") if artifact.type == "model"]
    (entry,) = artifact.manifest.contents
    assert artifact.name == "baseline-fold-2-model"
    assert (entry.path, entry.size, entry.local_path) == ("model.safetensors", 1000, str(offline[0] / "model.safetensors"))


def test_a_resumed_fold_continues_the_same_run(offline):
    first, other, again = (of_kind(file, "run")[0].run_id for file in offline_runs(offline[0]))
    assert first == again == (offline[0] / "runs/baseline/fold-2/wandb_id.txt").read_text() != other
    assert [items(row.item)["_step"] for row in of_kind(offline_runs(offline[0])[2], "history")] == [4]


def test_even_at_a_terminal_there_is_no_prompt(tmp_path):
    pty = pytest.importorskip("pty")
    script = """
    import sys
    assert sys.stdin.isatty()
    track(config(), "r", "cv", Path("r")).finish()
    """
    master, slave = pty.openpty()
    try:
        done = execute(tmp_path, script, stdin=slave)
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert len(offline_runs(tmp_path)) == 1


def test_a_server_that_is_not_there_costs_one_line_and_the_runs_are_kept_offline(tmp_path):
    script = """
    for fold in "01":
        tracker = track(config("online"), "r", "train", Path("r", fold), fold)
        tracker.log({"epoch": 1, "loss": 1.0})
        tracker.finish()
    """
    started = time.monotonic()
    done = execute(tmp_path, script, WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:1")
    assert done.returncode == 0
    assert done.stderr == ""
    assert time.monotonic() - started < 30
    notice, *lines = done.stdout.splitlines()
    assert notice.startswith("W&B: offline from here on, as the server can't be used (")
    assert "refused" in notice
    assert len(lines) == len(offline_runs(tmp_path)) == 2


def test_online_without_a_key_is_refused_in_one_line_with_the_remedy(tmp_path):
    script = """
    from src.errors import UserError
    try:
        track(config("online"), "r", "cv", Path("r"))
    except UserError as error:
        print(error)
    """
    done = execute(tmp_path, script)
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert not (tmp_path / "r").exists()
    assert all(remedy in done.stdout for remedy in ("`wandb login`", "WANDB_API_KEY", "--tracking.mode offline"))


@pytest.mark.parametrize(("mode", "given"), [("disabled", {}), ("auto", {"WANDB_MODE": "disabled", "WANDB_API_KEY": KEY})])
def test_disabled_writes_nothing_and_says_nothing(tmp_path, mode, given):
    script = f"""
    tracker = track(config("{mode}"), "r", "train", Path("r"), "0")
    tracker.log({{"epoch": 1}})
    tracker.log_confusion(np.zeros(2, int), np.zeros(2, int), ["a"])
    tracker.finish()
    """
    done = execute(tmp_path, script, **given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


class FakeServer(http.server.ThreadingHTTPServer):
    """Answers as much of W&B's protocol as a run needs to start, until it is asked for /hang; then nothing any more."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hangs, self.runs = threading.Event(), list[dict[str, Any]]()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """A client that has gone in the meantime is no error here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        while self.server.hangs.is_set():
            time.sleep(0.1)
        if self.path == "/hang":
            self.server.hangs.set()
        answer = json.dumps(self.answer(json.loads(body) if self.path == "/graphql" else {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST

    def answer(self, query: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "digits", "entity": {"id": "e", "name": "me"}}
        if query.get("operationName") == "RunResumeStatus":
            return {"data": {"model": project | {"bucket": None}}}
        if query.get("operationName") == "UpsertBucket":
            self.server.runs.append(query["variables"])
            bucket = {"id": "r", "name": query["variables"]["name"], "config": "{}", "project": project, "historyLineCount": 0}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        return {"data": {}}

    def log_message(self, *_: Any) -> None:
        pass


def test_a_server_that_hangs_in_mid_run_stops_neither_training_nor_the_end_of_the_program(tmp_path):
    server = FakeServer()
    script = f"""
    import atexit, sys, threading, time, urllib.request
    alive = lambda: any(thread.name == "tracking" for thread in threading.enumerate())
    atexit.register(lambda: print(sys.stderr is not sys.__stderr__ or not alive(), file=sys.__stdout__, flush=True))
    tracker = track(config(), "r", "train", Path("r"), "0")
    tracker._patience = 1.0
    tracker.log({{"epoch": 1, "loss": 1.0}})
    urllib.request.urlopen("{server.url}/hang")
    started = time.monotonic()
    tracker.log({{"epoch": 2, "loss": 1.0}})
    tracker.summarize({{"accuracy": 1.0}})
    print(time.monotonic() - started < 0.5)
    tracker.finish()
    tracker = track(config(), "r", "cv", Path("cv"))
    tracker.finish()
    print(time.monotonic() - started < 8)
    """
    started = time.monotonic()
    done = execute(tmp_path, script, WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url)
    took = time.monotonic() - started
    server.hangs.clear()
    server.shutdown()
    first = server.runs[0]
    assert (first["groupName"], first["displayName"], first["jobType"]) == ("r", "r/fold-0", "train")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert took < 30
    url, quick, late, cv, still_quick, unlocked = done.stdout.splitlines()
    assert url == f"W&B: {server.url}/me/digits/runs/{(tmp_path / 'r/wandb_id.txt').read_text()}"
    assert late.startswith("W&B: uploads not done after 1 s. Training goes on; `wandb sync wandb/run-")
    assert quick == still_quick == unlocked == "True"
    assert "offline run" in cv


def test_under_wandbs_agent_the_experiments_run_is_the_sweeps_own_and_a_folds_run_is_not(tmp_path):
    server = FakeServer()
    (tmp_path / "chosen.yaml").write_text("wandb_version: 1\n\ntrain.lr:\n  value: 0.25\nfold:\n  value: 2\n")
    (tmp_path / "r").mkdir()
    (tmp_path / "r/wandb_id.txt").write_text("before")
    script = """
    import os
    track(config(), "r", "train", Path("r/fold-2"), "2").log({"epoch": 1})
    track(config(), "r", "cv", Path("r")).summarize({"oof_accuracy": 0.5})
    os._exit(0)  # the stand-in for a server can't end a run
    """
    agent = {"SWEEP_ID": "sweep1", "RUN_ID": "run7", "SWEEP_PARAM_PATH": "chosen.yaml", "PROJECT": "sweeps", "ENTITY": "us"}
    agent = {f"WANDB_{name}": value for name, value in agent.items()}
    done = execute(tmp_path, script, WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url, **agent)
    server.shutdown()
    assert (done.returncode, done.stderr) == (0, "")
    fold, cv = server.runs
    assert (fold["project"], fold["entity"], fold["groupName"], fold["displayName"]) == ("sweeps", "us", "r", "r/fold-2")
    assert (fold["name"], fold["sweep"]) == ((tmp_path / "r/fold-2/wandb_id.txt").read_text(), None)
    assert (cv["project"], cv["entity"], cv["groupName"], cv["displayName"]) == ("sweeps", "us", "r", "r/cv")
    assert (cv["name"], cv["sweep"]) == ("run7", "sweep1")
    assert (tmp_path / "r/wandb_id.txt").read_text() == "run7", "predict.py adds to this row later"
    chosen = json.loads(cv["config"])
    assert (chosen["train.lr"], chosen["fold"], chosen["run"]) == ({"value": 0.25}, {"value": 2}, {"value": "r"})
    assert "train.lr" not in json.loads(fold["config"])


def test_a_lost_file_of_the_sweeps_values_stops_nothing(tmp_path):
    agent = {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "run7", "WANDB_SWEEP_PARAM_PATH": "lost.yaml"}
    done = execute(tmp_path, 'track(config(), "r", "cv", Path("r")).finish()', **agent)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = of_kind(offline_runs(tmp_path)[0], "run")
    assert run.run_id == "run7"


class FakeRun:
    """Stands for W&B's run; `fault` is called wherever it should fail or hang."""

    def __init__(self, folder: Path, fault: Any) -> None:
        self.dir, self.fault, self.rows, self.summary, self.finished = str(folder / "files"), fault, [], {}, False

    def log(self, row: dict[str, Any], **_: Any) -> None:
        self.rows.append(row)
        if len(self.rows) > 1:
            self.fault()

    def finish(self) -> None:
        self.finished = True


def test_what_fails_is_told_once_and_later_calls_do_nothing(tmp_path):
    def broken() -> None:
        raise ConnectionError("gone\naway")

    said: list[str] = []
    run = FakeRun(tmp_path, broken)
    tracker = Tracker(lambda: run, said.append)
    for epoch in range(5):
        tracker.log({"epoch": epoch})
    tracker.summarize({"accuracy": 1.0})
    tracker.finish()
    tracker.finish()
    tracker.log({"epoch": 9})
    assert [row["epoch"] for row in run.rows] == [0, 1]
    assert run.summary == {}
    assert run.finished
    (line,) = said
    assert line.startswith("W&B: logging an epoch: ConnectionError: gone away. Training goes on; `wandb sync ")


@pytest.mark.parametrize("patience", [0.1, 0.5])
def test_a_call_that_hangs_slows_nothing_and_finish_keeps_its_deadline(tmp_path, patience):
    said: list[str] = []
    free = threading.Event()
    tracker = Tracker(lambda: FakeRun(tmp_path, free.wait), said.append, patience)
    started = time.monotonic()
    for epoch in range(1000):
        tracker.log({"epoch": epoch})
    tracker.log_confusion(np.zeros(9, int), np.zeros(9, int), ["a"])
    assert time.monotonic() - started < 0.5
    tracker.finish()
    assert patience <= time.monotonic() - started < patience + 2
    free.set()
    (line,) = said
    assert line.startswith(f"W&B: uploads not done after {patience:g} s. Training goes on")


def test_a_start_that_fails_or_hangs_leaves_a_tracker_that_does_nothing(monkeypatch):
    monkeypatch.setattr(tracking, "START_SECONDS", 0.1)
    said: list[str] = []
    for begin in (lambda: 1 / 0, threading.Event().wait):
        tracker = Tracker(begin, said.append, patience=0.1)
        tracker.log({"epoch": 0})
        tracker.finish()
    assert said == [
        "W&B: starting: ZeroDivisionError: division by zero. Training goes on without it",
        "W&B: not started within 0.1 s. Training goes on without it",
    ]


def test_a_row_may_be_changed_once_it_is_logged(tmp_path):
    run = FakeRun(tmp_path, lambda: None)
    tracker = Tracker(lambda: run)
    row: dict[str, float] = {}
    for epoch in range(50):
        row["epoch"] = epoch
        tracker.log(row)
    tracker.finish()
    assert [logged["epoch"] for logged in run.rows] == list(range(50))


def test_importing_the_tracker_does_not_import_wandb(tmp_path):
    done = execute(tmp_path, "import sys; print('wandb' in sys.modules)")
    assert done.stdout == "False\n"


def test_disabled_needs_no_wandb_at_all(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    track(Config(tracking=TrackingConfig(mode="disabled")), "r", "cv", tmp_path / "r").finish()
    assert not (tmp_path / "r").exists()


def test_where_wandb_can_not_be_imported_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    said: list[str] = []
    for mode in ("auto", "offline"):
        track(Config(tracking=TrackingConfig(mode=mode)), "r", "cv", tmp_path / "r", said=said.append).finish()
    assert len(said) == 2
    assert all(line.endswith("Training goes on without it") for line in said)
