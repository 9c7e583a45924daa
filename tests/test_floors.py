"""The design's floors: imports point down only, heavy rooms stay where they are, and no file is two ideas."""

import ast
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
SOURCE = TOP / "src" / "forgetmenot"

FLOORS = {
    "result": 0, "folder_lock": 0, "forgetting": 0, "scores": 0, "rouge": 0, "answers": 0, "cache_room": 0,
    "checkpoint": 0, "signals": 0, "durable": 0, "streams": 0,
    "config.settings": 0,
    "data": 1,
    "model": 2, "metric": 2,
    "method": 3, "regularizer": 3, "loss": 3, "generate": 3, "key_values": 3, "optim": 3, "muon": 3,
    "footprint": 3, "heap": 3, "trace": 3, "deepen": 3,
    "module": 4, "datamodule": 4, "trainer": 4, "scoring": 4, "base_scores": 4, "cost": 4, "memory": 4, "trial": 4,
    "progress": 4, "penalties": 4, "kept_tensors": 4, "loggers": 4, "record": 4, "outcome": 4, "export": 4, "report": 4,
    "movement": 4, "freed_memory": 4, "checkpointing": 4, "random_state": 4, "dry_run": 4, "recorder": 4,
    "sharded_strategy": 4, "together": 4, "lost_ranks": 4,
    "cli": 5, "config": 5,
}  # fmt: skip
"""A room's floor; of two entries the longer counts. config.settings is plain data, the rest of config/ builds."""

MODULES = sorted(SOURCE.rglob("*.py"))


def _name(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def _imports(file: Path, *, at_load_only: bool = False) -> set[str]:
    """Returns the modules that `file` imports, in full; with `at_load_only` those outside functions alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(_at_load(tree)) if at_load_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} must import by full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _at_load(node: ast.AST) -> list[ast.AST]:
    inner = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.FunctionDef)]
    return [*inner, *(deep for child in inner for deep in _at_load(child))]


@cache
def _names() -> set[str]:
    return {_name(file) for file in MODULES}


def _own(names: set[str]) -> set[str]:
    """Returns the modules of ours among imported names, without our prefix; a name in a module counts as the module."""
    modules = _names()
    own = {name.removeprefix("forgetmenot.") for name in names if name.startswith("forgetmenot.")}
    return {name if name in modules else name.rpartition(".")[0] for name in own} - {""}


def _floor(module: str) -> int:
    rooms = [room for room in FLOORS if module == room or module.startswith(f"{room}.")]
    assert rooms, f"{module} must have a floor in the design's table"
    return FLOORS[max(rooms, key=len)]


ROOMS = [file for file in MODULES if _name(file)]


@pytest.mark.parametrize("file", ROOMS, ids=_name)
def test_imports_point_down_only(file: Path) -> None:
    own = _floor(_name(file))
    above = {module: _floor(module) for module in _own(_imports(file)) if _floor(module) > own}
    assert not above, f"{_name(file)} on floor {own} imports from above: {above}"


def test_no_two_modules_import_each_other_at_load() -> None:
    graph = {_name(file): _own(_imports(file, at_load_only=True)) for file in ROOMS}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for below in graph.get(module, ()):
                visit(below, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    assert done >= set(graph)


@pytest.mark.parametrize("file", ROOMS, ids=_name)
def test_only_config_and_cli_know_hydra_and_omegaconf(file: Path) -> None:
    if _name(file).split(".")[0] not in ("config", "cli"):
        assert not {name for name in _imports(file) if name.split(".")[0] in ("hydra", "omegaconf")}


@pytest.mark.parametrize(
    "file", [file for file in ROOMS if _floor(_name(file)) == 0 or "report" in file.parts], ids=_name
)
def test_plain_data_and_reports_never_reach_torch(file: Path) -> None:
    graph = {_name(other): _imports(other) for other in MODULES}
    reached, waiting = set(), [_name(file)]
    while waiting:
        module = waiting.pop()
        outside = {name.split(".")[0] for name in graph[module]}
        assert not outside & {"torch", "lightning", "transformers", "peft"}, f"{module} reaches {outside}"
        reached.add(module)
        waiting += [other for other in _own(graph[module]) if other not in reached]
    assert _name(file) in reached


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_is_one_idea_with_a_name_of_its_own(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300
    assert file.stem not in ("utils", "helpers", "common", "misc")


@pytest.mark.parametrize("file", sorted((TOP / "tests").rglob("*.py")), ids=lambda file: str(file.relative_to(TOP)))
def test_a_file_of_tests_stops_at_300_lines_too(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("file", ROOMS, ids=_name)
def test_a_function_stops_at_40_lines_and_a_story_at_60(file: Path) -> None:
    most = 60 if _name(file).startswith("cli") else 40
    functions = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)]
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno and f.end_lineno - f.lineno >= most}
    assert not long


def test_a_package_file_holds_no_logic() -> None:
    for file in SOURCE.rglob("__init__.py"):
        kinds = {type(node) for node in ast.parse(file.read_text(encoding="utf-8")).body}
        assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}, file


@pytest.mark.parametrize("file", ROOMS, ids=_name)
def test_no_broad_except_and_no_question_which_method_it_is(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    caught = [node.type for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    assert None not in caught and not [n for n in caught if isinstance(n, ast.Name) and n.id == "Exception"]
    text = file.read_text(encoding="utf-8")
    assert "method.name ==" not in text and "isinstance(method" not in text
