"""`ztb ui` from a shell: an address, and one line for every mistake."""

import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from ztb_jax.cli.main import run


def test_it_prints_its_address_and_ends_by_ctrl_c(tmp_path):
    command = [sys.executable, "-c", "from ztb_jax.cli.main import main; main()", "ui", "--port", "0"]
    variables = {**os.environ, "ABP_RUNS_ROOT": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert httpx.get(f"{address}api/runs", timeout=10).json() == []
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


@pytest.mark.parametrize("arguments", [["--root", "nowhere"], ["--port", "70000"], ["--host", "192.0.2.1"]])
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert run(["ui", *arguments], prog="ztb") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_port_in_use_is_a_mistake(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["ui", "--root", str(tmp_path), "--port", port], prog="ztb") == 2
    assert "--port" in capsys.readouterr().err
