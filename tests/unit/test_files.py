import hashlib
import os
import resource
import subprocess
import sys

import pytest

from wuerstchen.files import atomic_path, read_json, read_jsonl, sha256_file, sha256_text, write_json, write_jsonl


def test_atomic_path_replaces_whole_and_keeps_the_suffix(tmp_path):
    target = tmp_path / "deep" / "a.npz"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".npz" and temporary.parent == target.parent
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new" and os.listdir(target.parent) == ["a.npz"]


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = (
        "import os, signal, sys; from wuerstchen.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -9
    assert target.read_text() == "old"


@pytest.mark.parametrize("writer", ["shard", "tensors"])
def test_without_room_the_error_names_the_file_and_nothing_is_left(tmp_path, writer):
    """A limit on the size of files does what a full disk does."""
    target = tmp_path / "a.zip"
    code = {
        "shard": "from PIL import Image; from wuerstchen.shards import write_shard\n"
        "write_shard(sys.argv[1], {'a': Image.effect_noise((200, 200), 90)}, {})",
        "tensors": "import torch; from wuerstchen.weights import save\nsave(sys.argv[1], {'a': torch.zeros(9999)}, {})",
    }[writer]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", str(target)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)),
    )
    last = run.stderr.splitlines()[-1]
    assert run.returncode == 1 and last.startswith("OSError: ") and str(target) in last and "File too large" in last
    assert os.listdir(tmp_path) == []


def test_json_round_trips_and_refuses_nan(tmp_path):
    value = {"a": [1, 2.5, None], "ö": "Åland"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Åland" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_jsonl_round_trips_text_that_looks_like_line_ends(tmp_path):
    rows = [{"a": "x\ny"}, {"a": "x\u2028y\x85z"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert read_jsonl(tmp_path / "a.jsonl") == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1}\n{"a"\n', "line 2: not JSON"),
        (b"\n[1]\n", "line 2: expected an object"),
        (b'{"a": "\xff"}', "UTF-8"),
    ],
)
def test_jsonl_names_the_bad_line(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_bytes(text)
    with pytest.raises(ValueError, match=message) as error:
        read_jsonl(tmp_path / "a.jsonl")
    assert "a.jsonl" in str(error.value)


def test_digests(tmp_path):
    (tmp_path / "a").write_text("größe", encoding="utf-8")
    assert sha256_file(tmp_path / "a") == sha256_text("größe") == hashlib.sha256("größe".encode()).hexdigest()
