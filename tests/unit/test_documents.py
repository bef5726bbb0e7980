"""Every command in the README and the documents is one that its program takes; tests/test_commands.py runs what fits.

What is checked here: flags are parsed by the program's own parser, which then stops; targets of make are planned
(`make -n`); snakemake's options are parsed, its configs and targets exist.
"""

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
import yaml
from documents import LANGUAGES, PAPER_SCALE, PLACEHOLDERS, PROGRAMS, RUN, blocks, commands, documents, of_document
from trees import ROOT

from workflow.settings import problems
from wuerstchen.assets import expanded, find
from wuerstchen.distributed import launch

# Programs whose commands in the documents need more than the tiny study has, and the test that runs them.
ELSEWHERE = {
    "benchmarks.frechet": "unit/test_benchmarks.py::test_frechet",
    "benchmarks.preference": "unit/test_benchmark_preference.py::test_preference",
    "benchmarks.robustness": "unit/test_benchmark_robustness.py::test_all_sides_compute_the_same",
    "benchmarks.sampling": "unit/test_benchmarks.py::test_sampling_beside_diffusers",
    "benchmarks.study_sampling": "unit/test_benchmarks.py::test_sampling_of_a_study",
    "benchmarks.study_training": "unit/test_benchmarks.py::test_training_of_a_study",
    "benchmarks.training": "unit/test_benchmarks.py::test_training_beside_diffusers",
    "evaluation.assets": "unit/test_assets.py::test_the_command_of_the_evaluation_shows_what_it_needs",
    "evaluation.features": "unit/test_own.py::test_the_guides_commands_work",
    "evaluation.preference": "unit/test_preference.py::test_score_program_over_shards",
    "evaluation.prompt_sets": "unit/test_prompt_sets.py::test_the_official_zip_is_read_as_it_is",
    "evaluation.protocol_scores": "unit/test_own.py::test_the_guides_commands_work",
    "evaluation.robustness_choices": "unit/test_robustness_choices.py",
    "evaluation.sample": "unit/test_own.py::test_the_guides_commands_work",
    "evaluation.speed": "unit/test_figure4.py::test_a_cut_run_goes_on_where_it_was",
    "pytest": "unit/test_documents.py",
    "study_app.admin": "unit/test_study_admin.py::test_from_pictures_to_an_export_that_the_analysis_takes",
    "study_app.coverage": "unit/test_clusters.py::test_coverage_holds_in_all_six_cells",
    "workflow.publish": "unit/test_publish.py",
    "workflow.run": "test_workflow.py::test_killed_at_any_point_it_completes_with_the_same_numbers",
    "wuerstchen.release": "unit/test_release.py::test_weights_are_rounded_to_fp16_and_nothing_else_is_lost",
    "wuerstchen.distributed": "unit/test_distributed.py::test_several_nodes_of_a_slurm_job_get_a_torchrun_each",
}
# Commands of the shell around ours.
SHELL = {"git clone", "cd wuerstchen", "source .venv/bin/activate"}

ALL = commands()


class Parsed(BaseException):
    """Raised where a program has understood its command line, so that it does nothing."""


def parse(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program parse its command line. argparse ends it with status 2 where it refuses."""
    if module == "pytest":
        marks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
        assert words[0] == "-m" and any(mark.startswith(f"{words[1]}:") for mark in marks)
        return
    if module == "wuerstchen.distributed":
        launched, on_nodes = launch(words, {"SLURM_JOB_ID": "1"})
        words = on_nodes or launched
        module, words = words[words.index("wuerstchen.train")], words[words.index("wuerstchen.train") + 1 :]
        if words == ["…"]:
            return
    if module == "workflow.run":
        parse_snakemake([word for word in words if word != "--configfile"])
        return
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        original(self, args, namespace)
        raise Parsed

    program = importlib.import_module(f"{module}.__main__" if (ROOT / module).is_dir() else module)
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        try:
            program.main(words)
        except Parsed:
            return
        except SystemExit as end:
            assert not end.code and "--help" in words, end.code
            return
    raise AssertionError(f"{module} did not parse {words}")


def parse_snakemake(words: list[str]) -> argparse.Namespace:
    from snakemake.cli import get_argument_parser

    return get_argument_parser().parse_args(words)


def rules() -> set[str]:
    """Names of all rules, in every file."""
    paths = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    return {name for path in paths for name in re.findall(r"^\s*rule (\w+):", path.read_text(), re.MULTILINE)}


def test_the_blocks_of_the_documents_say_what_they_hold() -> None:
    found = blocks()
    assert len(found) > 30
    for block in found:
        assert block.language in LANGUAGES, (block.document, block.lines)
        for line in block.lines:
            if block.language in ("text", "nginx"):
                assert line.split(" ")[0] not in PROGRAMS, f"{block.document}: mark this block sh: {line}"
            assert line != PAPER_SCALE
    for name, text in documents().items():
        indented = re.findall(rf"^    (?:{'|'.join(PROGRAMS)}) .*$", text, re.MULTILINE)
        assert not indented, f"{name}: put this into a block that is marked sh: {indented}"


def test_every_command_has_a_test() -> None:
    """A command of a program that no test runs fails here: run it in tests/test_commands.py, or name its test."""
    for command in ALL:
        program = command.words[0]
        if command.module:
            assert command.paper_scale or not command.whole or command.module in RUN | set(ELSEWHERE), command
        else:
            assert program in PROGRAMS or any(shlex.join(command.words).startswith(known) for known in SHELL), command
    for module, test in ELSEWHERE.items():
        path, _, name = test.partition("::")
        text = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert f"def {name or 'test'}" in text, (module, test)


@pytest.mark.parametrize("module", sorted({command.module for command in ALL if command.module}))
def test_programs_take_the_flags_that_documents_give_them(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (command for command in ALL if command.module == module):
        if command.whole:
            parse(module, list(command.words[3:]), monkeypatch)
        else:
            assert importlib.util.find_spec(module), command


def test_torchruns_own_flags_and_the_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.run import get_args_parser

    found = [command for command in ALL if command.words[0] == "torchrun"]
    assert found
    for command in found:
        given = get_args_parser().parse_args(command.words[1:])
        assert given.module
        parse(given.training_script, given.training_script_args, monkeypatch)


def test_assets_that_documents_fetch_exist() -> None:
    fetched = [command for command in ALL if command.words[3:4] == ("fetch",)]
    assert len(fetched) > 8
    for command in fetched:
        for name in expanded([name for name in command.words[4:] if name not in PLACEHOLDERS]):
            find(name)


def test_snakemakes_options_configs_and_targets() -> None:
    known, given = rules(), [command for command in ALL if command.words[0] == "snakemake" and command.whole]
    made = {"config/my.yaml", "config/mine.yaml"}  # which the reader writes; the second stands in a document
    for command in given:
        options = parse_snakemake(list(command.words[1:]))
        for config in options.configfile or []:
            assert (ROOT / config).is_file() or str(config) in made, command
        assert set(options.targets) <= known, command
        assert all((ROOT / profile).is_dir() for profile in options.profile or []), command


def test_make_knows_its_targets() -> None:
    for words in sorted({command.words for command in ALL if command.words[0] == "make"}):
        run = subprocess.run([words[0], "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, (words, run.stderr)


def test_the_plugin_that_drafts_a_clusters_partitions_is_installed() -> None:
    for command in (command for command in ALL if command.words[0] == "generate-slurm-partition-config"):
        assert shutil.which(command.words[0])
        told = subprocess.run([command.words[0], "--help"], capture_output=True, text=True).stdout
        assert all(word in told for word in command.words[1:] if word.startswith("-")), told


def test_configs_in_documents_are_valid_over_the_study_that_they_change() -> None:
    under = {"config/README.md": "emoji.yaml", "docs/evaluate-your-model.md": "released.yaml"}
    found = {block.document: yaml.safe_load("\n".join(block.lines)) for block in blocks() if block.language == "yaml"}
    trained = yaml.safe_load((ROOT / "config" / "emoji-long.yaml").read_text(encoding="utf-8"))
    recipe = found.pop("wuerstchen/released/emoji/README.md")
    assert recipe == {key: trained[key] for key in ("preset", "seed", "training")}
    assert set(found) == set(under)
    for document, changes in found.items():
        config = yaml.safe_load((ROOT / "config" / under[document]).read_text(encoding="utf-8"))
        config["robustness"] |= changes.pop("robustness", {})
        assert problems(config | changes) == [], document
        assert problems(config | changes | {"shard_sise": 1})  # so that a wrong one would be seen


def test_snippets_of_python_compile() -> None:
    found = [block for block in blocks() if block.language == "python"]
    assert found
    for block in found:
        compile("\n".join(block.lines), block.document, "exec")


def test_links_between_documents_lead_somewhere() -> None:
    for name, text in documents().items():
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", text):
            target = "".join(link)
            assert target.startswith("https://") or ((ROOT / name).parent / target).exists(), (name, target)
        for path in re.findall(
            r"`((?:docs|config|tests|evaluation|wuerstchen|workflow|study_app|slurm)/[\w./-]+)`", text
        ):
            assert (ROOT / path).exists() or path in ("config/my.yaml",), (name, path)


def test_version_and_licence_are_the_same_wherever_they_stand() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["type"] == "software" and cited["authors"] == [{"name": "The authors of this repository"}]
    (paper,) = cited["references"]
    assert paper["title"].startswith("Würstchen") and paper["year"] == 2024
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[([\d.]+)\]", changes, re.MULTILINE)[0] == project["version"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith(f"{project['license']} License")


def test_a_new_command_without_a_test_would_be_found() -> None:
    """The collector sees what it should: blocks, lines that go on, comments, backquotes over two lines."""
    text = "\n".join(
        [
            "Run `python -m some.module", "--flag x` and `not_a_command`.", "", PAPER_SCALE, "```sh",
            "python -m other.one --a 'b c' \\", "    --d   # why", "make x && make y", "```", "```text", "make no",
            "```",
        ]
    )  # fmt: skip
    assert [(command.words, command.paper_scale, command.inline) for command in of_document("x.md", text)] == [
        (("python", "-m", "other.one", "--a", "b c", "--d"), True, False),
        (("make", "x"), True, False),
        (("make", "y"), True, False),
        (("python", "-m", "some.module", "--flag", "x"), False, True),
    ]
