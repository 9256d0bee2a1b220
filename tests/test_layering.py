"""Imports point one way, and heavy packages wait until somebody needs them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("capture", "fitting", "rendering", "training", "demo")  # each may import itself and those before it
RUNNER = tuple(path.stem for path in ROOT.glob("*.py"))  # may import all of them, and is imported by none
HEAVY = {
    "torch", "torchmetrics", "flip_evaluator", "mediapipe", "rembg", "open3d", "smplx", "anny", "viser", "jax",
    "pykinect2", "freenect2", "pylibfreenect2", "pymatting", "onnx", "onnxruntime", "matplotlib",
}  # fmt: skip
TORCH_FAMILY = {"torch", "torchmetrics", "flip_evaluator"}  # what rendering and training are made of


def modules() -> list[Path]:
    return [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(top-level package, whether it is imported as soon as the module is) of every import statement."""
    tree = ast.parse(path.read_text())
    late: set[ast.AST] = set()
    for node in ast.walk(tree):
        is_late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        is_late = is_late or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        if is_late:
            late.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node not in late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").split(".")[0], node not in late


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules(), ids=name)
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    above = {*LAYERS[LAYERS.index(layer) + 1 :], *RUNNER}
    assert not {package for package, _ in imports(path)} & above


@pytest.mark.parametrize("path", modules(), ids=name)
def test_heavy_packages_are_imported_late(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    allowed = TORCH_FAMILY if layer in ("rendering", "training") else set()
    assert not {package for package, is_early in imports(path) if is_early} & (HEAVY - allowed)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=name)
def test_the_command_line_loads_nothing_heavy(path: Path) -> None:
    early = {package for package, is_early in imports(path) if is_early}
    assert not early & (HEAVY | {"numpy", "cv2", "scipy", "numba", "av"})
    assert not early & (set(LAYERS) - {"capture"})


def test_the_reader_of_imports_sees_early_and_late(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import torch.nn\nif TYPE_CHECKING:\n    import open3d\ndef f():\n    from rembg import remove\n")
    assert sorted(imports(path)) == [("open3d", False), ("rembg", False), ("torch", True)]
