"""Who polls a run's metadata a thousand times a second sees the old or the new, and never half of either."""

import json
import subprocess
import sys
import threading
from io import StringIO

from ztb_jax.runs import directory
from ztb_jax.training.progress import Reporter

READER = """
import json, pathlib, sys, time
path, seen = pathlib.Path(sys.argv[1]), []
print("ready", flush=True)
while not path.with_name("over").exists():
    whole = json.loads(path.read_text())
    assert whole["first"] == whole["last"], whole
    assert len(whole["long"]) == 200
    seen.append(whole["first"])
    time.sleep(0.001)
assert seen == sorted(seen)
print(len(seen), len(set(seen)))
"""


def test_a_reader_never_sees_half_a_file(tmp_path):
    run = directory.RunDirectory(tmp_path)
    reporter = Reporter(stream=StringIO())
    reporter.attach(run, first=0, long=["x" * 50] * 200, last=0)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(run.metadata)], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    count, lock = 600, threading.Lock()
    numbers = iter(range(1, count + 1))

    def write():
        while True:
            with lock:
                number = next(numbers, None)
                if number is None:
                    return
                reporter.update(first=number, last=number)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    (tmp_path / "over").touch()
    told, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0
    polls, distinct = map(int, told.split())
    assert polls >= distinct > 20
    assert json.loads(run.metadata.read_text())["first"] == count


def test_updates_of_many_threads_are_all_kept(tmp_path):
    """Fields that threads set at the same time, and troubles that they add, all stay."""
    run = directory.RunDirectory(tmp_path)
    reporter = Reporter(stream=StringIO())
    reporter.attach(run)

    def work(name):
        for number in range(40):
            reporter.update(**{name: number})
            reporter.trouble(f"{name} {number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = directory.read_json(run.metadata)
    assert [told[name] for name in "abcd"] == [39] * 4
    assert len(told["troubles"]) == 160
