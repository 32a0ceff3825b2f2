"""benchmarks/turns.py and record.py: fair turns, ratios of one round, results that replace those before."""

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))  # behind the tests' folders, which have a kills.py too

from record import record
from turns import Apart, table, take_turns


def test_ways_take_turns_after_a_round_that_is_not_counted():
    order, clock = [], iter(range(100))
    ways = {name: lambda name=name: order.append(name) or float(next(clock)) for name in ("a", "b")}
    assert take_turns(ways, 2) == {"a": [2.0, 4.0], "b": [3.0, 5.0]}
    assert order == ["a", "b"] * 3
    assert take_turns(ways, 1, warm_up=False) == {"a": [6.0], "b": [7.0]}


def test_ratios_are_those_of_one_round():
    rows = table({"one": [1.0, 10.0, 1.0], "other": [2.0, 20.0, 3.0]}, "pictures")
    assert rows[0]["time against the first"] == "1.00 (1.00 to 1.00)"
    assert rows[1]["time against the first"] == "2.00 (2.00 to 3.00)"
    assert (rows[0]["pictures/s"], rows[0]["spread"], rows[0]["n"]) == ("1", "0.1 to 1", 3)


def counting(start: int):
    calls = [start]

    def once() -> float:
        calls[0] += 1
        return calls[0] + os.getpid() / 1e9

    return once


def test_a_way_apart_keeps_a_process_of_its_own_until_it_is_over():
    way = Apart(counting, 5)
    taken = take_turns({"apart": way}, 2)
    assert [int(seconds) for seconds in taken["apart"]] == [7, 8]
    pids = {round(seconds % 1 * 1e9) for seconds in taken["apart"]}
    assert pids == {way.process.pid} != {os.getpid()}
    assert way.process.exitcode == 0


def test_a_result_replaces_its_last_and_leaves_the_others(tmp_path: Path):
    record("one", "Which?", "python one.py", [{"way": "a", "n": 5}], tmp_path)
    record("two", "How?", "python two.py", [{"way": "b", "n": 5}], tmp_path)
    record("one", "Which?", "python one.py", [{"way": "c", "n": 7}], tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["one"]["rows"] == [{"way": "c", "n": 7}]
    page = (tmp_path / "RESULTS.md").read_text()
    assert "| c | 7 |" in page
    assert "| b | 5 |" in page
    assert "| a |" not in page
    assert all(word in page for word in ("python one.py", "cores", "torch "))
