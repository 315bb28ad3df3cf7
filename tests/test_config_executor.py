"""The executor section: what each kind needs, and what a stranger's file must not be able to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from spbfast.config import load_config
from spbfast.config.executor import Executor
from spbfast.errors import ConfigError
from tests.sweep_tools import write_job

pytestmark = pytest.mark.shell


def made(**keys: Any) -> Executor:
    return Executor.model_validate_json(json.dumps(keys), strict=True)


def test_threads_are_the_default() -> None:
    assert (made().kind, made().workers, made().batch, made().insecure) == ("threads", "auto", "auto", False)


def test_a_batch_system_by_yaml() -> None:
    found = made(
        kind="slurm", jobs=20, cores=8, memory="16GiB", walltime="2h", queue="batch", adapt={"max": 40}
    )
    assert (found.memory, found.adapt.min, found.adapt.max) == (16 << 30, 0, 40)
    assert found.lifetime_s == 7200 - 300
    assert made(kind="pbs", memory="1GiB", walltime="10min").lifetime_s == 540
    assert made(kind="pbs", memory="1GiB", walltime="10min", lifetime="5min").lifetime_s == 300


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "slurm"}, "memory: kind slurm needs the memory of one job"),
        ({"kind": "slurm", "memory": "1GiB", "processes": 2}, "processes: must be at most cores"),
        ({"kind": "slurm", "memory": "1GiB", "walltime": "30s"}, "walltime: must be at least 1min"),
        ({"kind": "slurm", "memory": "1GiB", "lifetime": "2h"}, "lifetime: must be shorter"),
        ({"kind": "address"}, "exactly one of the keys address and scheduler_file"),
        ({"kind": "address", "address": "pickle://x"}, "must be an address such as tls://"),
        ({"kind": "slurm", "memory": "1GiB", "adapt": {"min": 3, "max": 2}}, "min: must be at most max"),
        ({"workers": 0}, "must be 'auto' or a whole number, 1 to 1000000"),
        ({"max_failures": "120%"}, "a share such as 5%"),
        ({"max_failures": -1}, "a number of runs such as 20"),
    ],
    ids=str,
)
def test_wrong_executors(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made(**keys)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["queue", "account"])
@pytest.mark.parametrize("text", ["x\n#SBATCH --wrap=evil", "$(reboot)", "a b", "-x", ""])
def test_no_command_gets_into_a_job_script(key: str, text: str) -> None:
    with pytest.raises(ValidationError, match="one plain word"):
        made(kind="slurm", memory="1GiB", **{key: text})


def test_keys_of_other_kinds_are_named_not_refused() -> None:
    assert made(kind="serial", jobs=3, workers=2).unused_keys == ["jobs"]
    assert made(kind="slurm", memory="1GiB", jobs=3).unused_keys == []


def test_allowed_failures() -> None:
    assert made().allowed_failures(1000) is None
    assert made(max_failures="5%").allowed_failures(1000) == 50
    assert made(max_failures=0).allowed_failures(1000) == 0


def test_errors_have_their_place(tmp_path: Any) -> None:
    path = write_job(tmp_path, sweep="executor:\n  kind: slurm\n  memory: 1GiB\n  processes: 4\n")
    with pytest.raises(
        ConfigError, match=r"job.yaml:10:14: error: executor.processes: must be at most cores"
    ):
        load_config(path)
