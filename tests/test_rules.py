# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Rules of the house that a machine can check: imports, sizes, docstrings, exports, and what text may say."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "hf_audiolang"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "training_scripts").glob("*.py"))
MODEL_FILES = sorted((PACKAGE / "models").glob("*.py"))
# Who may import whom: a room may import itself and the rooms to the right of it.
ALLOWED = {
    "models": set(),
    "data": {"models"},
    "evaluation": {"models", "data"},
    "inference": {"models", "data", "evaluation"},
    "training": {"models", "data", "evaluation", "model_card", "model_card_head", "lora_targets"},
    "benchmarks": {"models", "data", "evaluation", "training"},
    "model_card": {"models"},
    "model_card_head": {"model_card"},
    "auto": {"models", "pipelines", "lora_targets"},
    "lora_targets": set(),
    "pipelines": {"models", "data", "evaluation"},
    "captioning": {"models", "data", "evaluation", "inference"},
    "detection": {"models", "data", "evaluation", "inference"},
    "heads": {"models", "data", "evaluation"},
    "convert": {"models", "data"},
}
# transformers fixes the signature of these
FREE_SIGNATURES = {"__call__", "from_pretrained"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(level, module) of every import statement of a file, inside functions too."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def room_of_import(path: Path, level: int, module: str) -> str | None:
    """First folder or file below the package that an import reaches, absolute or relative; None outside of it."""
    parts = module.split(".") if module else []
    if level == 0:
        return parts[1] if parts[0] == "hf_audiolang" and len(parts) > 1 else None
    folders = path.relative_to(PACKAGE).parts[:-1]
    reached = [*folders[: len(folders) - (level - 1)], *parts]
    return reached[0] if reached else None


def functions_of(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]


def body_lines(function: ast.FunctionDef) -> int:
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    start = first.end_lineno if has_docstring else function.lineno
    return function.end_lineno - start


def nesting(node: ast.AST) -> int:
    """Deepest nesting of blocks below a node; `elif` does not nest."""
    is_block = isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try)
    depths = [0]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        depths.append(nesting(child) - int(is_elif))
    return int(is_block) + max(depths)


@pytest.mark.parametrize("path", MODEL_FILES, ids=name_of)
def test_hub_folder_imports_siblings_and_fixed_libraries_only(path):
    for level, module in imports_of(path):
        if level == 1:
            assert module, f"{name_of(path)}: write `from .sibling import Name`, the Hub copies nothing else"
            assert (path.parent / f"{module}.py").is_file(), f"{name_of(path)} imports .{module}, not a sibling file"
        else:
            assert level == 0, f"{name_of(path)} imports from a parent folder"
            top = module.split(".")[0]
            assert top != "hf_audiolang", f"{name_of(path)} imports the package by name"
            assert top != "torchaudio", f"{name_of(path)} imports torchaudio, models must load without it"


@pytest.mark.parametrize("path", MODEL_FILES, ids=name_of)
def test_layers_know_no_family_and_encoders_no_system(path):
    siblings = [module for level, module in imports_of(path) if level == 1]
    if path.name.startswith(("layers_", "losses_", "modeling_outputs")):
        assert not [name for name in siblings if name.startswith(("modeling_", "configuration_"))]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_rooms_import_only_rooms_below_them(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room not in ALLOWED:
        return
    for level, module in imports_of(path):
        target = room_of_import(path, level, module)
        if target is not None:
            assert target in ALLOWED[room] | {room}, f"{name_of(path)} may not import {'.' * level}{module}"


@pytest.mark.parametrize("path", SOURCES + SCRIPTS, ids=name_of)
def test_files_and_functions_stay_small(path):
    limit = 150 if path in SCRIPTS else 700 if path in MODEL_FILES else 500
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit
    for function in functions_of(path):
        place = f"{name_of(path)}:{function.lineno} {function.name}"
        assert body_lines(function) <= 60, f"{place} has {body_lines(function)} lines, split it"
        assert nesting(function) <= 4, f"{place} nests {nesting(function)} deep"
        arguments = function.args
        number = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
        is_extractor = function.name == "__init__" and "feature_extraction" in path.name
        is_free = is_extractor or function.name in FREE_SIGNATURES
        assert number <= 10 or is_free, f"{place} takes {number} arguments"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_names_are_documented(path):
    for node in tree_of(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name_of(path)}: {node.name} has no docstring"
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    assert ast.get_docstring(part), f"{name_of(path)}: {node.name}.{part.name} has no docstring"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "__init__.py"], ids=name_of)
def test_exports_exist_and_are_complete(path):
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    module = importlib.import_module(".".join(relative.parts))
    exported = getattr(module, "__all__", None)
    assert exported is not None, f"{name_of(path)} has no __all__"
    assert all(hasattr(module, name) for name in exported)
    defined = {
        node.name
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    }
    # parts of models are not exported, as in transformers
    missing = set() if path.name.startswith("modeling_") else defined - set(exported) - {"main"}
    assert not missing, f"{name_of(path)} defines {sorted(missing)}: list them in __all__, or give them an underscore"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_files_start_with_the_licence(path):
    assert path.read_text(encoding="utf-8").startswith(
        "# Copyright 2026 The hf_audiolang authors\n# Licensed under the Apache License, Version 2.0.\n"
    )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_unsafe_or_swallowed(path):
    text = path.read_text(encoding="utf-8")
    assert "weights_only=False" not in text
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            place = f"{name_of(path)}:{node.lineno}"
            assert caught not in ("", "Exception", "BaseException"), f"{place} catches everything"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), f"{name_of(path)}:{node.lineno} evaluates text"


def test_torchaudio_is_imported_lazily_and_only_by_data_and_benchmarks():
    for path in SOURCES:
        top_level = [node for node in tree_of(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any("torchaudio" in ast.unparse(node) for node in top_level), name_of(path)
        room = path.relative_to(PACKAGE).parts[0]
        if room not in ("data", "benchmarks"):
            assert not any(module.startswith("torchaudio") for _, module in imports_of(path)), name_of(path)


def test_tracked_text_names_no_machine_path():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    pattern = re.compile(r"(?<![\w.])/(home|root|work|mnt)/\w")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".json"} and path.is_file():
            assert not pattern.search(path.read_text(encoding="utf-8")), f"{name} names a path of one machine"
