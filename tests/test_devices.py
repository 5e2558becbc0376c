"""Devices: which there are, which one is taken, and what a machine without it is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ztb_jax import devices
from ztb_jax.cli import train
from ztb_jax.cli.main import run
from ztb_jax.config import resolve
from ztb_jax.errors import ConfigError


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A fresh process, for JAX sets its backends up once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_", "ZTB_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, **variables},
        cwd=Path(__file__).parents[1],
    )


def test_the_report_tells_of_the_processor_what_the_kernel_does():
    (cpu,) = [device for device in devices.report() if device.platform == "cpu"]
    assert (cpu.name, cpu.index) == ("cpu:0", 0)
    assert cpu.cores == len(os.sched_getaffinity(0))
    assert cpu.memory_bytes is not None
    assert cpu.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < devices.host_memory().available <= cpu.memory_bytes
    assert cpu.native_bf16 is any(
        flag in Path("/proc/cpuinfo").read_text().split() for flag in ("avx512_bf16", "amx_bf16", "bf16")
    )


def test_devices_come_by_priority_and_auto_takes_the_first():
    found = devices.report()
    ranks = [devices.PRIORITY.index(device.platform) for device in found]
    assert ranks == sorted(ranks)
    assert devices.describe(devices.choose("auto")) == found[0]


def test_one_of_several_is_taken_by_its_number():
    told = python(
        "from ztb_jax import devices\n"
        "print([d.name for d in devices.report()], devices.choose('cpu:1').id, devices.choose('cpu').id)",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
        JAX_PLATFORMS="cpu",
    )
    assert told.stdout == "['cpu:0', 'cpu:1'] 1 0\n", told.stderr


@pytest.mark.skipif(len(jax.devices()) > 1 or jax.default_backend() != "cpu", reason="needs a bare machine")
@pytest.mark.parametrize("name", ["gpu", "cuda", "gpu:1", "cuda:1", "tpu", "cpu:1"])
def test_a_device_that_is_absent_is_refused_with_what_there_is(name):
    with pytest.raises(ConfigError) as refused:
        devices.choose(name)
    (finding,) = refused.value.findings
    platform, _, index = name.replace("cuda", "gpu").partition(":")
    assert f"there is no {platform}:{index or 0} here" in finding
    assert "There are: cpu:0 (cpu)" in finding
    assert ("JAX_PLATFORMS" in finding) is (platform != "cpu")


@pytest.mark.parametrize("name", ["", "mps", "gpu:", "gpu:-1", "auto:0", "gpu:x", "CPU", "cpu\n"])
def test_a_name_that_is_none_is_refused_by_settings_and_by_choose(name):
    with pytest.raises(ConfigError, match=r"run\.device"):
        devices.choose(name)
    with pytest.raises(ConfigError, match=r"flag --run\.device"):
        resolve(environ={}, flags={"run.device": name})


def test_choosing_the_processor_first_leaves_all_else_alone():
    """JAX_PLATFORMS names a platform that cannot be set up: so nothing may try."""
    code = "from ztb_jax import devices\nprint(devices.choose({!r}))"
    refused = python(code.format("auto"), JAX_PLATFORMS="no_such_platform")
    assert (
        "ConfigError: JAX cannot set its devices up (JAX_PLATFORMS is 'no_such_platform')" in refused.stderr
    )
    assert python(code.format("cpu"), JAX_PLATFORMS="no_such_platform").stdout.split() == ["cpu:0"]


def test_no_backend_at_all_is_a_finding():
    told = python("from ztb_jax import devices\ndevices.report()", JAX_PLATFORMS="cuda")
    assert told.returncode == 0 or "ConfigError: JAX cannot set its devices up" in told.stderr


def test_the_command_prints_the_report(capsys):
    assert run(["devices"], prog="ztb") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["device", "kind", "memory", "bfloat16", "cores", "backend"]
    assert len(rows) == len(devices.report())
    assert run(["devices", "--json"], prog="ztb") == 0
    (first, *_) = json.loads(capsys.readouterr().out)
    assert first["name"] == devices.report()[0].name
    assert set(first) >= {"platform", "kind", "index", "memory_bytes", "native_bf16", "cores", "backend"}


def test_short_flags_beat_variables_and_files(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text("run: {device: tpu, profile: false}\n")
    monkeypatch.setenv("ZTB_RUN__DEVICE", "cuda")
    monkeypatch.setenv("ZTB_RUN__PROFILE", "true")
    config = ["--config", str(file)]
    assert (train.parse(config).run.device, train.parse(config).run.profile) == ("cuda", True)
    assert train.parse([*config, "--device", "gpu:1"]).run.device == "gpu:1"
    assert train.parse([*config, "--device", "gpu:1", "--run.device", "cpu"]).run.device == "cpu"
    assert train.parse([*config, "--run.no-profile"]).run.profile is False
    monkeypatch.delenv("ZTB_RUN__PROFILE")
    assert train.parse([*config, "--profile"]).run.profile is True


def test_a_short_flag_without_a_value_exits_with_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        train.parse(["--device"])
    assert stopped.value.code == 2
    assert "ztb train" in capsys.readouterr().err


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_count_and_their_page_cache_does_not(tmp_path, version):
    proc, control = tmp_path / "proc", tmp_path / "cgroup"
    write(proc, meminfo="MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 900 kB\n")
    assert devices.host_memory(proc, control) == (1000 * 1024, 900 * 1024)
    if version == 1:
        root, line, cache = (
            control / "memory",
            "4:memory:/outer/inner",
            "inactive_file 1\ntotal_inactive_file",
        )
        names = {"limit": "memory__limit_in_bytes", "used": "memory__usage_in_bytes"}
    else:
        root, line, cache = control, "0::/outer/inner", "inactive_file"
        names = {"limit": "memory__max", "used": "memory__current"}
    write(proc / "self", cgroup=f"1:cpu:/elsewhere\n{line}\n")

    def group(folder, limit, used, file):
        write(
            folder,
            **{names["limit"]: limit, names["used"]: used, "memory__stat": f"anon 5\n{cache} {file}\n"},
        )

    group(root / "outer" / "inner", str(2**62) if version == 1 else "max", "1000", "0")
    group(root / "outer", "500000\n", "400000\n", "150000")
    assert devices.host_memory(proc, control) == (500_000, 250_000)
    group(root, "300000", "310000", "0")
    assert devices.host_memory(proc, control) == (300_000, 0)


def test_a_limit_of_the_address_space_counts():
    room = 2**30
    told = python(
        "import resource\nfrom pathlib import Path\nfrom ztb_jax import devices\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {room}, resource.RLIM_INFINITY))\n"
        "print(devices.host_memory().available)"
    )
    assert 0.9 * room < int(told.stdout) <= room, told.stderr
