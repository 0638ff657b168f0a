"""The hub: a run's model and a results folder are pushed by the real client, to a server on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard

from tests.synthetic import RATES, records, write_run

ROOT = Path(__file__).resolve().parents[1]


class Hub(ThreadingHTTPServer):
    """What the hub's clients need for one commit: repositories, large files, the commit itself.

    Attributes:
        repositories: What was asked to be created.
        files: {repository: {path: content}} of all commits.
        refuses: Whether commits are answered with 403.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: list[dict[str, object]] = []
        self.files: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_PUT(self) -> None:
        content = self.body()
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_POST(self) -> None:
        path, body = self.path.partition("?")[0], self.body()
        if path == "/api/repos/create":
            self.server.repositories.append(json.loads(body))
            self.answer({"url": f"{self.server.address}/me/mine", "id": "1"})
        elif path == "/api/validate-yaml":
            header = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self.answer({"errors": [] if isinstance(header, dict) else [{"message": "no YAML"}], "warnings": []})
        elif "/preupload/" in path:
            asked = [file["path"] for file in json.loads(body)["files"]]
            modes = ["lfs" if path.endswith((".safetensors", ".parquet")) else "regular" for path in asked]
            files = [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in zip(asked, modes, strict=True)]
            self.answer({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.address}/large/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            if self.server.refuses:
                return self.answer({"error": "no right to write here"}, 403)
            files = self.server.files.setdefault(path.partition("/commit/")[0], {})
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
            self.answer({"commitUrl": f"{self.server.address}/me/mine/commit/abc", "commitOid": "abc"})
        else:
            self.answer({"error": f"unknown address {path}"}, 404)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, told: dict[str, object], status: int = 200) -> None:
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def push(words: list[str], address: str, command: str = "push") -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "HF_ENDPOINT": address,
        "HF_TOKEN": "hf_made_up",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    line = [sys.executable, "-m", "harness", command, *words]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True)


def is_private(created: dict[str, object]) -> bool:
    """What a request to create a repository asked for, in the words of either version of the client."""
    return created.get("visibility") == "private" or created.get("private") is True


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "results", "score_full", 0, records(RATES["score_full"], 0, problems=20))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"weights" * 100)
    return folder


def test_a_model_is_pushed_with_its_card(hub: Hub, run: Path) -> None:
    done = push([str(run), "me/mine"], hub.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/me/mine/commit/abc")
    assert [is_private(r) for r in hub.repositories] == [True]  # unless --public
    files = hub.files["/api/models/me/mine"]
    assert set(files) == {"README.md", "config.json", "model.safetensors", "run.json", "config.gin", "metrics.jsonl"}
    assert files["model.safetensors"] == b"weights" * 100
    assert files["run.json"] == (run / "run.json").read_bytes()
    card = ModelCard(files["README.md"].decode())
    data: Any = card.data
    info = json.loads((run / "run.json").read_text())
    assert info["name"] in (data.tags or [])
    assert f"--seed {info['seed']}" in card.text
    assert "Acc@t2" in card.text
    assert "Reference: the paper" not in card.text, "a heading of tables that are left out"
    assert "[" in card.text
    found = {result.metric_name: result.metric_value for result in data.eval_results or []}
    assert set(found) == {"Acc@t1", "Acc@t2"}
    assert all(0 <= value <= 1 for value in found.values())
    shown = push([str(run), "--card"], "http://127.0.0.1:9")  # asks no hub
    assert shown.stdout.strip() == files["README.md"].decode().strip()


def test_an_adapter_is_pushed_with_the_runs_card_and_without_a_path_of_this_machine(hub: Hub, run: Path) -> None:
    (run / "model" / "README.md").write_text("peft's empty card of an adapter")
    (run / "model" / "adapter_config.json").write_text('{"r": 8, "base_model_name_or_path": "/home/me/.cache/base"}')
    model = json.loads((run / "run.json").read_text())["policy"]
    done = push([str(run), "me/mine"], hub.address)
    assert done.returncode == 0, done.stderr
    files = hub.files["/api/models/me/mine"]
    data: Any = ModelCard(files["README.md"].decode()).data
    assert data.model_name == "score_full (seed 0)"
    assert json.loads(files["adapter_config.json"]) == {"r": 8, "base_model_name_or_path": model}


def test_results_are_pushed_as_a_dataset(hub: Hub, run: Path, tmp_path: Path) -> None:
    done = push([str(tmp_path / "results"), "me/mine", "--results", "--public"], hub.address)
    assert done.returncode == 0, done.stderr
    assert [is_private(r) for r in hub.repositories] == [False]
    files = hub.files["/api/datasets/me/mine"]
    assert set(files) == {"README.md", "runs.parquet", "updates.parquet", "attempts.parquet"}
    (tmp_path / "runs.parquet").write_bytes(files["runs.parquet"])
    assert len(pd.read_parquet(tmp_path / "runs.parquet")) == 1
    configs = yaml.safe_load(files["README.md"].decode().split("---")[1])["configs"]
    assert [c["config_name"] for c in configs] == ["runs", "updates", "attempts"]
    assert {c["data_files"] for c in configs} <= set(files)


@pytest.mark.slow
def test_what_cannot_be_pushed_is_one_error(hub: Hub, run: Path, tmp_path: Path) -> None:
    hub.refuses = True
    refused = push([str(run), "me/mine"], hub.address)
    assert refused.returncode == 1
    assert "nothing was committed to me/mine" in refused.stderr
    assert "Traceback" not in refused.stderr
    cases = {
        "is not the folder of one finished run": [str(tmp_path / "results"), "me/mine"],
        "is no name of a repository": [str(run), "me//mine"],
        "USER/NAME is missing": [str(run)],
    }
    for words, arguments in cases.items():
        done = push(arguments, hub.address)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    for file in (run / "model").iterdir():
        file.unlink()
    empty = push([str(run), "me/mine"], hub.address)
    assert empty.returncode == 2
    assert "holds no model/" in empty.stderr


@pytest.mark.slow
def test_a_run_pushes_its_model_when_it_is_done(hub: Hub, tmp_path: Path) -> None:
    small = ["--steps", "2", "--limit", "4", "--bind", "run.problems=2", "--bind", "run.samples=2"]
    words = ["naive_multi_turn_rl", *small, "--out", str(tmp_path), "--push-to-hub", "me/mine"]
    hub.refuses = True
    refused = push(words, hub.address, "run")
    assert refused.returncode == 1
    assert "The run is done and kept in" in refused.stderr
    hub.refuses = False
    done = push(words, hub.address, "run")  # the run is done: it is pushed, and not run again
    assert done.returncode == 0, done.stderr
    assert "is done already" in done.stdout
    (model,) = tmp_path.rglob("model.safetensors")
    assert hub.files["/api/models/me/mine"]["model.safetensors"] == model.read_bytes()
